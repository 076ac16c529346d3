"""Photographs of single garments, given to the public by volunteers; split by who sent them."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from embattle.data.catalogue import DATASETS, Progress, folder_of, load
from embattle.data.imageset import ImageSet, Split
from embattle.errors import DataError, ImageFileError
from embattle.images import read_picture, to_tensor

SIDE = 128
_PICTURES, _LABELS = "clothing_128.zip", "labels.csv"
_COLUMNS = ("file", "category", "sender_id")
# A picture of this size takes some kilobytes, the table 230.
_LARGEST_PICTURE, _LARGEST_TABLE = 2**20, 16 * 2**20


def in_test(sender: str) -> bool:
    """Whether the pictures of a contributor are test pictures: half of the contributors' numbers, by their sha256.

    A side depends on the number alone, so pictures that are added or left out move no other ones across.

    >>> in_test("181"), in_test("204")
    (False, True)
    """
    return hashlib.sha256(f"clothing/sender/{sender}".encode()).digest()[0] < 128


@DATASETS.register(
    "clothing",
    example=lambda: load("clothing").take(range(16)),
    paper="Grigorev and contributors 2020, Clothing dataset (CC0 1.0), github.com/alexeygrigorev/clothing-dataset",
    differs="3,307 of its pictures, at most 300 of a category, at 128 x 128 with white borders; the split is ours, by "
    "contributor",
)
def clothing(split: Split, *, root: Path, progress: Progress | None = None) -> ImageSet:
    """Clothing: 3,307 photographs of garments in 17 categories, 128 x 128 RGB; no contributor is in both splits.

    Args:
        split: "train" (1,643 pictures) or "test" (1,664); see `in_test`. Every category is in both.
        root: the data root; clothing_128.zip and labels.csv are looked for in `root`/clothing.
        progress: not used, there is nothing to download from.

    Raises:
        DataError: a file is missing or broken, or a picture has another size.
    """
    folder = folder_of("clothing", root)
    missing = [name for name in (_PICTURES, _LABELS) if folder is None or not (folder / name).is_file()]
    if folder is None or missing:
        raise DataError(
            f"{root / 'clothing'} does not hold {' and '.join(missing)}; they are made from "
            "github.com/alexeygrigorev/clothing-dataset and cannot be downloaded as they are. Put them there, or give the "
            "folder above clothing/ as --data-root or EMBATTLE_DATA"
        )
    rows = read_labels(folder / _LABELS)
    classes = tuple(sorted({row["category"] for row in rows}))
    chosen = [row for row in rows if in_test(row["sender_id"]) == (split == "test")]
    if not chosen:
        raise DataError(f"{folder / _LABELS} has no picture of the {split} split; put the original table there")
    return ImageSet(
        name=f"clothing/{split}",
        images=_images(folder / _PICTURES, [row["file"] for row in chosen]),
        labels=torch.tensor([classes.index(row["category"]) for row in chosen]),
        classes=classes,
        ids=tuple(f"clothing/{row['file']}" for row in chosen),
    )


def read_labels(path: Path) -> Sequence[Mapping[str, str]]:
    """The rows of labels.csv, each with its file, category and sender_id.

    Args:
        path: the table.

    Raises:
        DataError: it cannot be read, a column is missing, a row has no value in one, or a file comes twice.
    """
    try:
        if path.stat().st_size > _LARGEST_TABLE:
            raise DataError(f"{path} is longer than {_LARGEST_TABLE:,} bytes; put the original table there")
        table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); put the original there") from error
    if missing := [name for name in _COLUMNS if name not in (table.fieldnames or ())]:
        raise DataError(f"{path} has no column {', '.join(missing)}; it must have {', '.join(_COLUMNS)}")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        if empty := [name for name in _COLUMNS if not row[name]]:
            raise DataError(f"{path}, row {number} has no {empty[0]}; put the original table there")
        if row["file"] in seen:
            raise DataError(f"{path}, row {number}: {row['file']} comes twice; put the original table there")
        seen.add(row["file"])
    return rows


def _images(archive: Path, names: Sequence[str]) -> torch.Tensor:
    """The pictures of an archive, which is read in memory: nothing is unpacked to a disk."""
    images = torch.empty((len(names), 3, SIDE, SIDE), dtype=torch.uint8)
    try:
        with zipfile.ZipFile(archive) as pictures:
            for place, name in enumerate(names):
                images[place] = _picture(archive, pictures, name)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise DataError(f"{archive} cannot be read ({error}); put the original there") from error
    return images


def _picture(archive: Path, pictures: zipfile.ZipFile, name: str) -> torch.Tensor:
    try:
        entry = pictures.getinfo(name)
    except KeyError:
        raise DataError(f"{archive} has no {name}, which {_LABELS} lists; put the originals of both there") from None
    # What an entry unpacks to is bounded by the length it claims.
    if entry.file_size > _LARGEST_PICTURE:
        raise DataError(f"{name} in {archive} claims {entry.file_size:,} bytes; at most {_LARGEST_PICTURE:,} are read")
    try:
        pixels = read_picture(pictures.read(entry), mode="RGB").pixels
    except ImageFileError as error:
        raise DataError(f"{name} in {archive}: {error}") from error
    if pixels.shape[:2] != (SIDE, SIDE):
        height, width = pixels.shape[:2]
        raise DataError(f"{name} in {archive} is {width} x {height} pixels, not {SIDE} x {SIDE}; put the original there")
    return to_tensor(pixels)
