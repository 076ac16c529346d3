"""Decoding: what troublesome files become, and that the rest is refused with a sentence."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from embattle.errors import ImageFileError
from embattle.images import decode, encode_png, read_header, read_picture


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 60)], axis=2).astype(np.uint8)


def far(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "truncated.jpg",
            r"truncated\.jpg is damaged or cut short \(image file is truncated.*\); replace it or take it out",
        ),
        ("truncated.png", r"truncated\.png is damaged or cut short"),
        ("bomb.png", r"bomb\.png claims 2,500,000,000 pixels; at most 50,000,000 pixels are decoded"),
        ("zero.png", r"zero\.png is empty \(0 bytes\)"),
        ("text.jpg", r"text\.jpg is no picture that can be read; readable are JPEG, PNG"),
        ("float.tiff", r"float\.tiff holds floating-point pixels, whose range is not fixed; save it with 8 or 16 bits"),
    ],
)
def test_a_bad_file_is_refused_by_name(hostile_images: Path, name: str, sentence: str) -> None:
    with pytest.raises(ImageFileError, match=sentence):
        decode(hostile_images / "bad" / name)


def test_a_missing_file_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"gone\.png does not exist; give the path of a picture file"):
        decode(tmp_path / "gone.png")
    with pytest.raises(ImageFileError, match="is no regular file"):
        decode(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageFileError, match=r"pipe\.png is no regular file"):
        decode(tmp_path / "pipe.png")


@pytest.mark.parametrize("limit_of_pillow", [Image.MAX_IMAGE_PIXELS, None])
def test_the_size_in_the_header_is_checked_before_pixels_are_decoded(
    hostile_images: Path, monkeypatch: pytest.MonkeyPatch, limit_of_pillow: int | None
) -> None:
    def never(self: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels of a 50,000 x 50,000 picture were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit_of_pillow)
    start = time.monotonic()
    with pytest.raises(ImageFileError, match="at most 50,000,000 pixels are decoded"):
        decode(hostile_images / "bad" / "bomb.png")
    assert time.monotonic() - start < 1


def test_a_decompression_bomb_takes_little_memory(hostile_images: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from embattle.images import decode\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = used()\n"
        "try: decode(Path(sys.argv[1]))\n"
        "except ValueError: print(used() - before)\n"
    )
    bomb = str(hostile_images / "bad" / "bomb.png")
    done = subprocess.run([sys.executable, "-c", program, bomb], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 32  # MiB; the decoded picture would be 7,153


def test_our_own_limit_is_below_pillows_and_can_be_chosen(make_png: Callable[..., bytes]) -> None:
    with pytest.raises(ImageFileError, match=r"8,000 x 8,000 = 64,000,000 pixels; at most 50,000,000"):
        decode(make_png(8000, 8000))
    small = encode_png(ramp(10, 10))
    with pytest.raises(ImageFileError, match=r"10 x 10 = 100 pixels; at most 99"):
        decode(small, max_pixels=99)
    assert decode(small, max_pixels=100).shape == (10, 10, 3)


def test_16_bit_grey_is_scaled_by_rounding_not_by_cutting() -> None:
    values = np.array([[0, 128, 129, 255, 256, 32767, 32768, 65407, 65535]], dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    expected = np.array([round(v * 255 / 65535) for v in values[0].tolist()], dtype=np.uint8)
    assert decode(buffer.getvalue(), mode="L")[0, :, 0].tolist() == expected.tolist()
    assert decode(buffer.getvalue(), mode="RGB")[0, :, 2].tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_the_same_in_every_container(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp()[:, :, 0].astype(np.uint16) * 257).save(buffer, format=kind)
    assert np.array_equal(decode(buffer.getvalue(), mode="L")[:, :, 0], ramp()[:, :, 0])


def test_16_bit_colour_is_at_most_one_level_away(make_png: Callable[..., bytes]) -> None:
    wide = ramp().astype(">u2") * 257 + 100
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    pixels = decode(make_png(32, 24, bits=16, colour=2, rows=rows))
    assert far(pixels, np.clip(np.rint(wide / 257), 0, 255)) <= 1


def test_cmyk_jpeg_has_the_colours_of_the_picture(hostile_images: Path) -> None:
    with Image.open(hostile_images / "odd" / "cmyk.jpg") as stored:
        assert stored.mode == "CMYK"
    assert far(decode(hostile_images / "odd" / "cmyk.jpg"), ramp()) <= 12


def test_palette_transparency_becomes_white(hostile_images: Path) -> None:
    path = hostile_images / "odd" / "palette.png"
    with Image.open(path) as stored:
        index = np.array(stored)
        assert stored.mode == "P"
        hole = index == stored.info["transparency"]
    pixels = decode(path)
    assert hole.any()
    assert not hole.all()
    assert (pixels[hole] == 255).all()
    assert far(pixels[~hole], ramp()[~hole]) < 60


def test_half_transparency_is_mixed_with_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (0, 100, 200, 51)).save(buffer, format="PNG")
    assert decode(buffer.getvalue())[0, 0].tolist() == [204, 224, 244]


def test_grey_with_alpha_keeps_grey_and_gets_white(hostile_images: Path) -> None:
    picture = read_picture(hostile_images / "odd" / "grey_alpha.png")
    seen = ramp()[:, :, 1] > 127
    assert picture.pixels.shape == (24, 32, 1)
    assert np.array_equal(picture.pixels[seen, 0], ramp()[seen, 0])
    assert (picture.pixels[~seen] == 255).all()


def test_one_bit_becomes_black_and_white(hostile_images: Path) -> None:
    pixels = decode(hostile_images / "odd" / "one_bit.png", mode="L")
    assert np.array_equal(pixels[:, :, 0], np.where(ramp()[:, :, 0] > 127, 255, 0))


@pytest.mark.parametrize(("name", "distance"), [("animated.gif", 40), ("animated.webp", 0)])
def test_of_an_animation_the_first_frame_is_used_and_said_so(hostile_images: Path, name: str, distance: int) -> None:
    path = hostile_images / "odd" / name
    picture = read_picture(path)
    assert picture.notes == (f"{path} holds several frames or pages; only the first is used",)
    assert far(picture.pixels, ramp()) <= distance
    with pytest.warns(UserWarning, match="only the first is used"):
        decode(path)


def test_exif_orientation_turns_the_picture_upright(hostile_images: Path) -> None:
    path = hostile_images / "odd" / "rotated.jpg"
    with Image.open(path) as stored:
        assert stored.size == (24, 32)
    header = read_header(path)
    assert (header.width, header.height) == (32, 24)
    assert far(decode(path), ramp()) <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_agree_with_pillows_own(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, format="PNG", exif=exif)
    with Image.open(io.BytesIO(buffer.getvalue())) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    pixels, header = decode(buffer.getvalue()), read_header(buffer.getvalue())
    assert np.array_equal(pixels, expected)
    assert (header.height, header.width) == expected.shape[:2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_exif_does_not_cost_the_picture(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, format=kind, exif=b"Exif\0\0MM\0\x2a\0\0\0\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(buffer.getvalue()).shape == (24, 32, 3)


def test_formats_that_start_other_programs_are_not_opened() -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, format="EPS")
    with pytest.raises(ImageFileError, match="is no picture that can be read"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, format=kind)
    assert np.array_equal(decode(buffer.getvalue()), ramp())


def test_no_file_handle_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(ramp()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(20):
            decode(path)
            read_header(path)
    assert not [f for f in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{f}") == str(path)]


_VALID: dict[str, bytes] = {}
for _kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
    _buffer = io.BytesIO()
    Image.fromarray(ramp(12, 12)).save(_buffer, format=_kind)
    _VALID[_kind] = _buffer.getvalue()


@settings(max_examples=300)
@given(
    kind=st.sampled_from(sorted(_VALID)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.floats(0.02, 1),
)
def test_changed_bytes_give_a_picture_or_a_sentence(kind: str, changes: list[tuple[float, int]], keep: float) -> None:
    content = bytearray(_VALID[kind])
    for where, value in changes:
        # Squared: half of the changes hit the first quarter of the file, where the headers are.
        content[int(where**2 * len(content))] = value
    content = content[: max(1, int(keep * len(content)))]
    try:
        pixels = read_picture(bytes(content), max_pixels=10**6).pixels
    except ImageFileError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] in (1, 3)
