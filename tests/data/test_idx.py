"""idx files: the format read right, and nothing but a DataError out of a hostile one."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embattle.data.idx import parse_idx, read_idx
from embattle.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)


def test_an_array_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx(IMAGES)))
    assert np.array_equal(read_idx(path, axes=3), IMAGES)
    assert np.array_equal(parse_idx(io.BytesIO(idx(IMAGES[0, 0])), axes=1, name="x"), IMAGES[0, 0])
    read_idx(path, axes=3)[0, 0, 0] = 1  # writable, as torch wants it


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"x is only 0 bytes long; an idx file starts with a header of 16 bytes"),
        (b"\x89PNG\r\n\x1a\n", "x is not an idx file: it starts with 8950, an idx file with 0000"),
        (b"\0\0\x0d\3" + idx(IMAGES)[4:], r"elements of the idx type 0x0d; only unsigned bytes \(0x08\)"),
        (idx(IMAGES[0]), "x has 2 axes where 3 are needed"),
        (idx(IMAGES)[:9], "ends inside its header, after 9 of 16 bytes"),
        (b"\0\0\x08\3" + struct.pack(">III", 0, 28, 28), r"claims the shape \(0, 28, 28\); every axis must be at least 1"),
        (b"\0\0\x08\3" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "bytes; at most 268,435,456 are read"),
        (idx(IMAGES)[:-1], "x is cut short: 29 of the 30 bytes its header claims are there"),
        (idx(IMAGES) + b"\0", "x goes on after the 30 bytes its header claims"),
    ],
)
def test_each_lie_has_its_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        parse_idx(io.BytesIO(content), axes=3, name="x")


def test_a_claim_of_much_takes_no_memory() -> None:
    content = b"\0\0\x08\3" + struct.pack(">III", 255, 1024, 1024) + b"abc"
    tracemalloc.start()
    with pytest.raises(DataError, match="is cut short: 3 of the 267,386,880 bytes"):
        parse_idx(io.BytesIO(content), axes=3, name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_small_file_cannot_unpack_to_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(50 * 2**20)))
    tracemalloc.start()
    with pytest.raises(DataError, match="goes on after the 30 bytes"):
        read_idx(path, axes=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_files_that_are_no_gzip_or_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    packed = gzip.compress(idx(IMAGES))
    for content in (b"", b"text", packed[:5], packed[:20], packed[:-1], packed[:12] + b"\xff\xff\xff" + packed[15:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz "):
            read_idx(path, axes=3)
    with pytest.raises(DataError, match=r"gone\.gz cannot be unpacked"):
        read_idx(tmp_path / "gone.gz", axes=3)


@settings(max_examples=400)
@given(header=st.binary(min_size=0, max_size=20), rest=st.binary(max_size=40), axes=st.sampled_from([1, 3]))
def test_random_bytes_give_an_array_or_a_data_error(header: bytes, rest: bytes, axes: int) -> None:
    outcome: np.ndarray | DataError
    try:
        outcome = parse_idx(io.BytesIO(header + rest), axes=axes, name="x")
    except DataError as error:
        outcome = error
    assert str(outcome).startswith("x ") if isinstance(outcome, DataError) else idx(outcome) == header + rest


@settings(max_examples=400)
@given(
    changes=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 255)), min_size=1, max_size=4),
    packed=st.booleans(),
)
def test_changed_header_bytes_give_an_array_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], packed: bool
) -> None:
    """Changes inside the idx header, or inside the gzip packing around it."""
    raw = bytearray(idx(IMAGES))
    target = bytearray(gzip.compress(bytes(raw), mtime=0)) if packed else raw
    for where, value in changes:
        target[where] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.gz"
    path.write_bytes(bytes(target) if packed else gzip.compress(bytes(target)))
    outcome: np.ndarray | DataError
    try:
        outcome = read_idx(path, axes=3)
    except DataError as error:
        outcome = error
    assert str(path) in str(outcome) if isinstance(outcome, DataError) else outcome.size == 30
