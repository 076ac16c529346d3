from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from embattle.errors import ImageFileError
from embattle.report.pictures import Picture, PictureSheet, png_size


def _png(height: int = 5, width: int = 7, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)).convert(mode).save(
        stream, format="PNG"
    )
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_size_agrees_with_pillow(mode):
    data = _png(11, 23, mode)
    assert png_size(data) == Image.open(io.BytesIO(data)).size == (23, 11)


def _header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "signature"),
        (b"<svg onload=alert(1)></svg>", "signature"),
        (b"GIF89a" + bytes(40), "signature"),
        (_png()[:8], "cut off"),
        (_png()[:-1], "cut off"),
        (_png()[:-12], "cut off"),
        (_png() + b"<script>", "bytes behind"),
        (_png()[:20] + b"\xff" + _png()[21:], "checksum"),
        (b"\x89PNG\r\n\x1a\n" + _png()[33:], "IHDR"),
        (_header(50_000, 50_000), "50000 x 50000"),
        (_header(0, 4), "0 x 4"),
    ],
)
def test_what_is_no_whole_png_is_refused(data, says):
    with pytest.raises(ImageFileError, match=says):
        png_size(data)


def test_every_single_flipped_byte_is_noticed():
    data = _png()
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]
        with pytest.raises(ImageFileError):
            png_size(damaged)


def test_same_bytes_are_embedded_once_and_read_once_per_name():
    reads = []

    def blob(unit: str, name: str) -> bytes:
        reads.append((unit, name))
        return _png(4 if name == "other.png" else 5)

    sheet = PictureSheet(blob)
    first = sheet.thumbnail("a" * 64, "one.png")
    assert sheet.thumbnail("b" * 64, "two.png") is first
    assert sheet.get("a" * 64, "one.png") is first
    other = sheet.get("a" * 64, "other.png")
    assert other is not None
    assert first is not None
    assert other.key != first.key
    assert len(reads) == 3
    assert list(sheet.thumbnails) == [first.key]  # "other" is not drawn by reference
    assert sheet.get("a" * 64, None) is None
    assert sheet.problems == []


@pytest.mark.parametrize(
    ("size", "target", "shown"),
    [
        ((28, 28), 128, (140, 140)),
        ((32, 32), 128, (128, 128)),
        ((32, 16), 64, (64, 32)),
        ((64, 64), 64, (64, 64)),
        ((40, 40), 64, (80, 80)),
    ],
)
def test_small_pictures_grow_by_whole_factors(size, target, shown):
    picture = Picture(key="p", width=size[0], height=size[1], uri="")
    assert picture.pixelated
    assert picture.shown(target) == shown


def test_photographs_are_scaled_to_the_place_they_have():
    for width, target in ((224, 128), (96, 128), (96, 64)):
        picture = Picture(key="p", width=width, height=width // 2, uri="")
        assert not picture.pixelated
        assert picture.shown(target) == (target, target // 2)
