"""The pictures of a page: checked to be PNG, embedded once however often they are shown."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from embattle.errors import EmbattleError, ImageFileError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_SIDE = 4096
SMALL_SIDE = 64
"""Pictures up to this side are enlarged by a whole factor with hard pixel edges; larger ones are scaled smoothly."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One embedded picture: its id in the page, its size in pixels and its data address."""

    key: str
    width: int
    height: int
    uri: str

    @property
    def pixelated(self) -> bool:
        """Whether single pixels are to stay visible."""
        return max(self.width, self.height) <= SMALL_SIDE

    def shown(self, target: int) -> tuple[int, int]:
        """Width and height on the page, in CSS pixels, near `target` for the longer side.

        >>> Picture(key="p0", width=28, height=28, uri="").shown(112)
        (112, 112)
        """
        longest = max(self.width, self.height)
        scale = max(1, round(target / longest)) if self.pixelated else target / longest
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))


class PictureSheet:
    """Reads pictures through `blob(unit_id, name)`; the same bytes get the same `Picture`.

    A picture that is missing or no PNG becomes None and is counted in `problems`: one damaged file must not hide the
    rest of the page.
    """

    def __init__(self, blob: Callable[[str, str], bytes]) -> None:
        self._blob = blob
        self._by_name: dict[tuple[str, str], Picture | None] = {}
        self._by_content: dict[str, Picture] = {}
        self.thumbnails: dict[str, Picture] = {}
        self.problems: list[str] = []

    def get(self, unit: str, name: str | None) -> Picture | None:
        """The picture called `name` of a unit, or None."""
        if not name:
            return None
        place = (unit, name)
        if place not in self._by_name:
            self._by_name[place] = self._read(unit, name)
        return self._by_name[place]

    def thumbnail(self, unit: str, name: str | None) -> Picture | None:
        """Like `get`, for pictures drawn by reference to a shared definition in the page."""
        picture = self.get(unit, name)
        if picture is not None:
            self.thumbnails[picture.key] = picture
        return picture

    def _read(self, unit: str, name: str) -> Picture | None:
        try:
            data = self._blob(unit, name)
            width, height = png_size(data)
        except (EmbattleError, OSError, KeyError) as error:
            self.problems.append(f"{name} of unit {unit[:16]}: {error}")
            return None
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._by_content:
            uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
            key = f"p{len(self._by_content)}"
            self._by_content[digest] = Picture(key=key, width=width, height=height, uri=uri)
        return self._by_content[digest]


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk is checked, without decoding pixels.

    Args:
        data: the bytes of the file.

    Raises:
        ImageFileError: not a PNG, damaged, too large, or with bytes after its end.
    """
    if not data.startswith(_SIGNATURE):
        raise ImageFileError("not a PNG file (its signature is missing); write pictures with embattle.images.encode_png")
    position, size, ended = len(_SIGNATURE), (0, 0), False
    while position < len(data) and not ended:
        kind, body, position = _chunk(data, position)
        if size == (0, 0):
            size = _header(kind, body)
        ended = kind == b"IEND"
    if not ended or position != len(data):
        raise ImageFileError("a PNG file must stop right at its IEND chunk; this one is cut off or has bytes behind it")
    return size


def _chunk(data: bytes, position: int) -> tuple[bytes, bytes, int]:
    if position + 12 > len(data):
        raise ImageFileError("a PNG file that is cut off inside a chunk")
    length, kind = struct.unpack_from(">I4s", data, position)
    end = position + 12 + length
    if end > len(data):
        raise ImageFileError("a PNG file that is cut off inside a chunk")
    body = data[position + 8 : end - 4]
    if zlib.crc32(kind + body) != struct.unpack_from(">I", data, end - 4)[0]:
        raise ImageFileError(f"a PNG file whose {kind.decode('latin-1')!r} chunk has a wrong checksum")
    return kind, body, end


def _header(kind: bytes, body: bytes) -> tuple[int, int]:
    if kind != b"IHDR" or len(body) != 13:
        raise ImageFileError("a PNG file must begin with an IHDR chunk of 13 bytes")
    width, height = struct.unpack(">II", body[:8])
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise ImageFileError(f"a picture of {width} x {height} pixels; allowed in a report: sides of 1 to {_LARGEST_SIDE}")
    return width, height
