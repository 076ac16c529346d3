"""Clothing: nobody's pictures are in both splits, every category is, and broken files are sentences."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embattle.data import load
from embattle.data.clothing import in_test
from embattle.errors import DataError

COLUMNS = ("file", "category", "kids", "sender_id", "small_subset_split")
# Contributors whose side is known from the doctest of `in_test`.
TRAIN, TEST = "181", "204"
ROWS = (
    ("hat/a.jpg", "hat", "False", TEST, ""),
    ("hat/b.jpg", "hat", "False", TRAIN, "train"),
    ("shoes/c.jpg", "shoes", "True", TRAIN, "test"),
    ("shoes/d.jpg", "shoes", "False", TEST, ""),
    ("shoes/e.jpg", "shoes", "False", TEST, "train"),
)


def jpeg(grey: int, side: int = 128) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (grey,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def write(root: Path, rows: tuple[tuple[str, ...], ...] = ROWS, pictures: dict[str, bytes] | None = None) -> None:
    folder = root / "clothing"
    folder.mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows((COLUMNS, *rows))
    found = {row[0]: jpeg(40 * place) for place, row in enumerate(ROWS)} if pictures is None else pictures
    with zipfile.ZipFile(folder / "clothing_128.zip", "w") as archive:
        for name, content in found.items():
            archive.writestr(name, content)


def test_a_contributor_is_on_one_side_and_labels_are_numbered_over_both(tmp_path: Path) -> None:
    write(tmp_path)
    train, test = (load("clothing", split=split, root=tmp_path) for split in ("train", "test"))
    assert train.ids == ("clothing/hat/b.jpg", "clothing/shoes/c.jpg")
    assert test.ids == ("clothing/hat/a.jpg", "clothing/shoes/d.jpg", "clothing/shoes/e.jpg")
    assert train.classes == test.classes == ("hat", "shoes")
    assert train.labels is not None
    assert test.labels is not None
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [0, 1, 1])
    assert test.images.shape == (3, 3, 128, 128)
    assert test.images[:, 0, 64, 64].tolist() == pytest.approx([0, 120, 160], abs=2)
    assert load("clothing", root=tmp_path, size=32).images.shape == (3, 3, 32, 32)


@pytest.mark.real_data
def test_the_real_split_shares_no_contributor_and_has_every_category_twice(data_root: Path) -> None:
    with (data_root / "clothing" / "labels.csv").open() as stream:
        rows = {f"clothing/{row['file']}": row for row in csv.DictReader(stream)}
    train, test = (load("clothing", split=split, root=data_root) for split in ("train", "test"))
    assert (len(train), len(test)) == (1643, 1664)
    assert sorted(train.ids + test.ids) == sorted(rows)
    senders = [{rows[name]["sender_id"] for name in data.ids} for data in (train, test)]
    assert not senders[0] & senders[1]
    assert all(len(side) > 100 for side in senders)
    for data in (train, test):
        assert data.labels is not None
        assert data.classes is not None
        assert [data.classes[label] for label in data.labels] == [rows[name]["category"] for name in data.ids]
        # A picture must find at least one other of its class.
        assert int(torch.bincount(data.labels, minlength=17).min()) >= 8


@pytest.mark.real_data
def test_pixels_are_those_of_the_archive(data_root: Path) -> None:
    data = load("clothing", root=data_root).take([0, 900])
    with zipfile.ZipFile(data_root / "clothing" / "clothing_128.zip") as archive:
        for name, image in zip(data.ids, data.images, strict=True):
            expected = np.asarray(Image.open(io.BytesIO(archive.read(name.removeprefix("clothing/")))).convert("RGB"))
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_half_of_all_contributors_are_for_testing() -> None:
    share = np.mean([in_test(str(number)) for number in range(2000)])
    assert 0.46 < share < 0.54


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"clothing does not hold clothing_128\.zip and labels\.csv; they are made from git"
    ):
        load("clothing", root=tmp_path)
    write(tmp_path)
    (tmp_path / "clothing" / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"clothing does not hold labels\.csv; .* as --data-root or EMBATTLE_DATA"):
        load("clothing", root=tmp_path)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((*ROWS, ("hat/z.jpg", "hat", "False", TEST, "")), r"has no hat/z\.jpg, which labels\.csv lists"),
        ((*ROWS, ROWS[0]), r"row 6: hat/a\.jpg comes twice"),
        ((ROWS[0], ("hat/b.jpg", "hat", "False", "", "")), "row 2 has no sender_id"),
        ((ROWS[0], ("hat/b.jpg",)), "row 2 has no category"),
        ((ROWS[1], ROWS[2]), "has no picture of the test split"),
    ],
)
def test_a_broken_table_is_a_sentence(tmp_path: Path, rows: tuple[tuple[str, ...], ...], sentence: str) -> None:
    write(tmp_path, rows)
    with pytest.raises(DataError, match=sentence):
        load("clothing", root=tmp_path)


def test_tables_and_archives_that_are_none_are_sentences(tmp_path: Path) -> None:
    write(tmp_path)
    table, archive = tmp_path / "clothing" / "labels.csv", tmp_path / "clothing" / "clothing_128.zip"
    archive.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"clothing_128\.zip cannot be read \(.*\); put the original there"):
        load("clothing", root=tmp_path)
    table.write_text("file,label\nhat/a.jpg,hat\n")
    with pytest.raises(DataError, match="has no column category, sender_id; it must have file, category, sender_id"):
        load("clothing", root=tmp_path)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"labels\.csv cannot be read as a table"):
        load("clothing", root=tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no picture", r"hat/a\.jpg in .*clothing_128\.zip: the picture is no picture that can be read"),
        (jpeg(0, side=64), r"hat/a\.jpg in .* is 64 x 64 pixels, not 128 x 128"),
        (bytes(2**20 + 1), r"hat/a\.jpg in .* claims 1,048,577 bytes; at most 1,048,576 are read"),
    ],
)
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    write(tmp_path, pictures={row[0]: jpeg(9) for row in ROWS} | {ROWS[0][0]: content})
    with pytest.raises(DataError, match=sentence):
        load("clothing", root=tmp_path)
