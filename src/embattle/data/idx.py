"""The idx file format of MNIST, read as a hostile file: nothing in its header is believed before it is checked."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embattle.errors import DataError

LARGEST_FILE = 256 * 2**20
_CHUNK = 2**20
_UINT8 = 0x08


class Readable(Protocol):
    """What can be read from the front, like an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


def parse_idx(stream: Readable, *, axes: int, name: str, limit: int = LARGEST_FILE) -> npt.NDArray[np.uint8]:
    """An array of unsigned bytes in idx form.

    The form: two zero bytes, the element type (8: unsigned byte), the number of axes, each axis' length as a big-endian
    32-bit number, then the elements. The lengths are checked against `limit` before anything is allocated, and memory
    grows with the bytes that really come, not with what the header says.

    Args:
        stream: the file's content, already unpacked.
        axes: how many axes the array must have: 3 for images, 1 for labels.
        name: what to call the file in an error.
        limit: most bytes of elements that are read.

    Raises:
        DataError: not idx, another type or number of axes, an axis of length 0, too large, cut short, or too long.

    >>> import io
    >>> parse_idx(io.BytesIO(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])), axes=1, name="labels").tolist()
    [7, 9]
    """
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{name} is only {len(magic)} bytes long; an idx file starts with a header of {4 + 4 * axes} bytes")
    if magic[:2] != b"\0\0":
        raise DataError(f"{name} is not an idx file: it starts with {magic[:2].hex()}, an idx file with 0000")
    if magic[2] != _UINT8:
        raise DataError(f"{name} holds elements of the idx type 0x{magic[2]:02x}; only unsigned bytes (0x08) are read")
    if magic[3] != axes:
        raise DataError(f"{name} has {magic[3]} axes where {axes} are needed (3 for images, 1 for labels)")
    header = stream.read(4 * axes)
    if len(header) < 4 * axes:
        raise DataError(f"{name} ends inside its header, after {4 + len(header)} of {4 + 4 * axes} bytes")
    shape = struct.unpack(f">{axes}I", header)
    if 0 in shape:
        raise DataError(f"{name} claims the shape {shape}; every axis must be at least 1 long")
    size = math.prod(shape)
    if size > limit:
        raise DataError(f"{name} claims the shape {shape}, which is {size:,} bytes; at most {limit:,} are read")
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(_CHUNK, size - len(content)))
        if not chunk:
            raise DataError(f"{name} is cut short: {len(content):,} of the {size:,} bytes its header claims are there")
        content += chunk
    if stream.read(1):
        raise DataError(f"{name} goes on after the {size:,} bytes its header claims; it is damaged or no idx file")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx(path: Path, *, axes: int, limit: int = LARGEST_FILE) -> npt.NDArray[np.uint8]:
    """The array in a gzip-packed idx file.

    Args:
        path: the file, packed with gzip.
        axes: how many axes it must have: 3 for images, 1 for labels.
        limit: most bytes that are unpacked, so that a small file cannot fill the memory.

    Raises:
        DataError: no such file, not gzip, damaged, or anything `parse_idx` refuses.
    """
    try:
        with gzip.open(path, "rb") as stream:
            return parse_idx(stream, axes=axes, name=str(path), limit=limit)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be unpacked ({error}); delete it and it is downloaded again, or put the original file there"
        ) from error
