"""Read picture files that somebody else made: bounded, upright, 8 bits per channel, and never half of a picture."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from embattle.errors import ImageFileError
from embattle.images.encode import Pixels, as_pixels

Mode = Literal["RGB", "L"]

MAX_PIXELS = 50_000_000
# Some readers take the whole file into memory; 50 million pixels of 3 x 16 bits are 300 MB.
_MAX_BYTES = 512 * 2**20
# Only these decoders of Pillow run: others hand the file to programs outside (EPS) or are rarely looked at.
_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    PpmImagePlugin.PpmImageFile.format,
    GifImagePlugin.GifImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
)
_READABLE = "JPEG, PNG, BMP, WebP, PPM, PGM, GIF and TIFF"
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I")
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture file says about itself before its pixels are decoded: sides as it is looked at, grey or not."""

    width: int
    height: int
    grey: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Decoded pixels (H, W, C) uint8, and what was left out or changed on the way, in words."""

    pixels: Pixels
    notes: tuple[str, ...]


def read_header(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Size and kind of a picture file, without decoding its pixels.

    Args:
        source: the file's path or its bytes.
        max_pixels: most width x height that is accepted.

    Raises:
        ImageFileError: no picture this package reads, or too large.
    """
    with _opened(source, max_pixels) as (picture, _):
        width, height = picture.size
        orientation, _ = _orientation(picture)
        if orientation in _SIDEWAYS:
            width, height = height, width
        return Header(width=width, height=height, grey=picture.mode in _GREY)


def read_picture(source: Path | bytes, *, mode: Mode | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """The pixels of a picture file together with notes on what they leave out.

    Turned upright by its EXIF orientation; 16-bit grey scaled to 8 bits by rounding v / 257 (of 16-bit
    colour Pillow gives the upper bytes, at most one level away); CMYK and palettes converted;
    transparency laid on white; of an animation or of several pages the first, with a note. Colour profiles are not
    applied: the numbers are taken as sRGB, which is what embedding models are fed.

    Args:
        source: the file's path or its bytes.
        mode: "RGB" or "L" (grey); None keeps grey files grey and makes all others RGB.
        max_pixels: most width x height that is accepted; checked on the header, before pixels are decoded.

    Raises:
        ImageFileError: no picture this package reads, damaged, cut short, too large, or of a pixel type with no
            agreed range (32-bit integers, floats).
    """
    with _opened(source, max_pixels) as (picture, name):
        notes = []
        # MPO: a photo with a preview or a second view; its first picture is the photo, nothing is lost.
        if getattr(picture, "is_animated", False) and picture.format != "MPO":
            notes.append(f"{name} holds several frames or pages; only the first is used")
        orientation, damaged = _orientation(picture)
        if damaged:
            notes.append(f"{name} has damaged EXIF data; it is taken as it is stored")
        grey = picture.mode in _GREY
        _check_mode(picture, name)
        picture.load()
        eight = _eight_bit(picture)
        if orientation != 1:
            eight = _turned(eight, orientation)
        wanted = mode or ("L" if grey else "RGB")
        pixels = as_pixels(_on_white(eight).convert(wanted))
        return Picture(pixels=pixels, notes=tuple(notes))


def decode(source: Path | bytes, *, mode: Mode = "RGB", max_pixels: int = MAX_PIXELS) -> Pixels:
    """The pixels of a picture file: (H, W, 3) or (H, W, 1) uint8.

    As `read_picture`, whose notes come as warnings here.

    Args:
        source: the file's path or its bytes.
        mode: "RGB" or "L" (grey).
        max_pixels: most width x height that is accepted.

    Raises:
        ImageFileError: no picture this package reads, damaged, cut short, or too large.

    >>> from embattle.images import encode_png
    >>> decode(encode_png(np.full((2, 3, 1), 7, dtype=np.uint8)), mode="L").shape
    (2, 3, 1)
    """
    picture = read_picture(source, mode=mode, max_pixels=max_pixels)
    for note in picture.notes:
        warnings.warn(note, stacklevel=2)
    return picture.pixels


@contextmanager
def _opened(source: Path | bytes, max_pixels: int) -> Iterator[tuple[Image.Image, str]]:
    """The picture with its header read and its size checked; every failure inside becomes an ImageFileError."""
    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        with _stream(source, name) as stream, warnings.catch_warnings():
            # Our own limit is below the one Pillow warns at; its warnings about odd metadata are no news to a user.
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise ImageFileError(
                        _too_large(name, f"{width:,} x {height:,} = {width * height:,} pixels", max_pixels)
                    )
                yield picture, name
    except ImageFileError:
        raise
    except Image.DecompressionBombError as error:
        # The only place where the size is told is Pillow's sentence: "Image size (2500000000 pixels) exceeds ...".
        told = re.search(r"\((\d+) pixels\)", str(error))
        claim = f"{int(told[1]):,} pixels" if told else "far too many pixels"
        raise ImageFileError(_too_large(name, claim, max_pixels)) from error
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{name} is no picture that can be read; readable are {_READABLE}") from error
    except MemoryError as error:
        raise ImageFileError(_too_large(name, "more pixels than fit into memory", max_pixels)) from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, AttributeError,
            ZeroDivisionError, RuntimeError, struct.error) as error:  # fmt: skip
        # Pillow's readers let many types of exception out when a file lies about itself.
        raise ImageFileError(f"{name} is damaged or cut short ({error}); replace it or take it out") from error


def _too_large(name: str, what: str, max_pixels: int) -> str:
    return f"{name} claims {what}; at most {max_pixels:,} pixels are decoded. Make it smaller, or take it out"


def _stream(source: Path | bytes, name: str) -> IO[bytes]:
    if isinstance(source, bytes):
        if not source:
            raise ImageFileError(f"{name} is empty (0 bytes); replace it or take it out")
        return io.BytesIO(source)
    # A pipe or a device would block or never end.
    if not source.is_file():
        what = "is no regular file" if source.exists() else "does not exist"
        raise ImageFileError(f"{name} {what}; give the path of a picture file ({_READABLE})")
    length = source.stat().st_size
    if length == 0:
        raise ImageFileError(f"{name} is empty (0 bytes); replace it or take it out")
    if length > _MAX_BYTES:
        raise ImageFileError(f"{name} is {length:,} bytes long; picture files of at most {_MAX_BYTES:,} bytes are read")
    try:
        return source.open("rb")
    except OSError as error:
        raise ImageFileError(f"{name} cannot be opened ({error.strerror}); make it readable or take it out") from error


def _orientation(picture: Image.Image) -> tuple[int, bool]:
    """EXIF orientation 1..8 (1: upright), and whether the EXIF data could not be read."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        # Whatever a broken metadata block raises, the pixels beside it are still good.
        return 1, True
    return (value, False) if value in range(1, 9) else (1, False)


def _check_mode(picture: Image.Image, name: str) -> None:
    # A 16-bit PNG or PGM may be opened as mode I; elsewhere I means 32 bits, whose white is nowhere written down.
    if picture.mode == "F" or (picture.mode == "I" and picture.format not in ("PNG", "PPM")):
        kind = "floating-point" if picture.mode == "F" else "32-bit integer"
        raise ImageFileError(f"{name} holds {kind} pixels, whose range is not fixed; save it with 8 or 16 bits per channel")


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode not in (*_SIXTEEN, "I"):
        return picture
    wide = np.asarray(picture).astype(np.int64)
    return Image.fromarray(np.clip((wide + 128) // 257, 0, 255).astype(np.uint8))


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    moves = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    return picture.transpose(moves[orientation])


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer)
