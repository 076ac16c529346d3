"""What every test shares: fixed threads and seeds, the folder of real data, and a folder of hostile picture files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

# Derandomised: a failure that one machine sees is a failure that every machine sees.
hypothesis.settings.register_profile("embattle", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("embattle")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ.get("EMBATTLE_TESTS_THREADS", "2")))
    torch.use_deterministic_algorithms(True, warn_only=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets; a missing one fails, so that no machine quietly tests less than another."""
    root = Path(os.environ.get("EMBATTLE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / "mnist").is_dir():
        if os.environ.get("EMBATTLE_TESTS_WITHOUT_DATA") == "1":
            pytest.skip(f"no data in {root}, and EMBATTLE_TESTS_WITHOUT_DATA=1 allows that")
        pytest.fail(
            f"{root} holds no data sets; set EMBATTLE_DATA to a folder with mnist/ and fashion_mnist/, "
            "or EMBATTLE_TESTS_WITHOUT_DATA=1 to leave these tests out"
        )
    return root


def png_chunks(width: int, height: int, *, bits: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG file written by hand, so that its header can claim what no library would write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    return png_chunks


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth RGB picture in which no two corners look alike: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 60)], axis=2).astype(np.uint8)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def hostile_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of each troublesome kind; its bad/ cannot be read, its odd/ can.

    The odd ones show `ramp()` (the grey ones its red channel) in every form a user's folder may hold it in.
    """
    root = tmp_path_factory.mktemp("hostile")
    bad, odd = root / "bad", root / "odd"
    bad.mkdir()
    odd.mkdir()
    pixels = ramp()
    picture, grey = Image.fromarray(pixels), Image.fromarray(pixels[:, :, 0])
    jpeg = saved(picture, "JPEG", quality=95)

    (bad / "truncated.jpg").write_bytes(jpeg[: len(jpeg) * 4 // 5])
    (bad / "truncated.png").write_bytes(saved(picture, "PNG")[:-60])
    (bad / "bomb.png").write_bytes(png_chunks(50_000, 50_000, rows=b"\0" * 1000))
    (bad / "zero.png").write_bytes(b"")
    (bad / "text.jpg").write_text("this is no picture\n")
    (bad / "float.tiff").write_bytes(saved(Image.fromarray(pixels[:, :, 0].astype(np.float32)), "TIFF"))

    (odd / "sixteen.png").write_bytes(saved(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "PNG"))
    (odd / "cmyk.jpg").write_bytes(saved(picture.convert("CMYK"), "JPEG", quality=95, subsampling=0))
    palette = picture.convert("RGB").quantize(32)
    (odd / "palette.png").write_bytes(saved(palette, "PNG", transparency=palette.getpixel((0, 0))))
    flipped = [picture, picture.transpose(Image.Transpose.ROTATE_180)]
    (odd / "animated.gif").write_bytes(saved(flipped[0], "GIF", save_all=True, append_images=flipped[1:]))
    (odd / "animated.webp").write_bytes(saved(flipped[0], "WEBP", save_all=True, append_images=flipped[1:], lossless=True))
    exif = Image.Exif()
    exif[0x0112] = 6
    # Orientation 6: "turn by 90 degrees clockwise to look at it", so the file holds the picture turned the other way.
    stored = picture.transpose(Image.Transpose.ROTATE_90)
    (odd / "rotated.jpg").write_bytes(saved(stored, "JPEG", quality=95, subsampling=0, exif=exif))
    (odd / "one_bit.png").write_bytes(saved(grey.point(lambda v: 255 * (v > 127)).convert("1"), "PNG"))
    alpha = Image.fromarray(np.where(pixels[:, :, 1] > 127, 255, 0).astype(np.uint8))
    (odd / "grey_alpha.png").write_bytes(saved(Image.merge("LA", (grey, alpha)), "PNG"))
    return root
