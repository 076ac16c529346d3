"""Stanford Online Products: pictures of products in the folder its archive unpacks to, with the official split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from embattle.data.fitting import check_memory, check_shape
from embattle.data.folder import DEFAULT_SIZE, OnError
from embattle.data.imageset import ImageSet, Split
from embattle.errors import DataError, ImageFileError
from embattle.images import read_picture, resize, to_tensor

LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
COLUMNS = ("image_id", "class_id", "super_class_id", "path")
# The real lists are about 3 MB long.
LARGEST_LIST = 64 * 2**20
_FEWEST = 2


@dataclass(frozen=True)
class Product:
    """A line of a list: the picture's path below the folder, with slashes, and the product that it shows."""

    path: str
    product: int


def is_sop(folder: Path) -> bool:
    """Whether a folder is that of Stanford Online Products: it has one of the two lists, and must have the other."""
    return any(os.path.isfile(folder / name) for name in LISTS.values())


def load_sop(folder: Path, split: Split, *, size: int | None = None, on_error: OnError = "raise") -> ImageSet:
    """The pictures of a split in the order of its list, decoded once to one size; every product is a class.

    Both lists are read whichever split is asked for: products are numbered over both of them, and one that is in both
    would let a model be tested on what it was trained on. Pictures are decoded one by one into the memory they stay in.

    Args:
        folder: with Ebay_train.txt, Ebay_test.txt and the folders of pictures.
        split: "train" or "test".
        size: side length in pixels to pad and resize to; None: 128. At 224 a split needs 8.5 GiB, at 64 0.7 GiB.
        on_error: "raise" at the first picture that is missing or damaged, or "skip" such pictures with a note.

    Raises:
        DataError: a list is missing, broken, or names a picture outside the folder; a product is in both splits; more
            memory needed than allowed.
        ImageFileError: a picture is missing or damaged, under on_error="raise".
    """
    check_shape(None, size)
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error={on_error!r} is unknown; write on_error='raise' or on_error='skip'")
    lists = {name: read_list(folder / file) for name, file in LISTS.items()}
    products = _products(folder, lists["train"], lists["test"])
    listed, side = lists[split], size or DEFAULT_SIZE
    check_memory(f"sop/{split}", len(listed), 3, side, side)
    images, kept, left_out = _decoded(folder, listed, side, on_error)
    if len(kept) < _FEWEST:
        raise DataError(f"{folder} has {len(kept)} readable pictures of its {split} split; at least {_FEWEST} are needed")
    number = {product: place for place, product in enumerate(products)}
    return ImageSet(
        name=f"sop/{split}",
        images=images,
        labels=torch.tensor([number[each.product] for each in kept]),
        classes=tuple(map(str, products)),
        ids=tuple(f"sop/{each.path}" for each in kept),
        notes=(f"pictures that could not be read were left out: {len(left_out)}, the first is {left_out[0]}",)
        if left_out
        else (),
    )


def read_list(path: Path) -> list[Product]:
    """The lines of Ebay_train.txt or Ebay_test.txt below their heading "image_id class_id super_class_id path".

    Args:
        path: the list; no picture is looked at.

    Raises:
        DataError: no such file, too long, not text, another heading, a line that is not three whole numbers and a path
            inside the folder, a path that comes twice, or no line at all.
    """
    found: dict[str, Product] = {}
    for number, words in _lines(path):
        if number == 1:
            if tuple(words) != COLUMNS:
                raise DataError(f"{path} begins with {' '.join(words)[:80]!r}; its first line must be {' '.join(COLUMNS)}")
            continue
        product = _product(path, number, words)
        if product.path in found:
            raise DataError(f"{path}, line {number}: {product.path} is listed twice; put the original list there")
        found[product.path] = product
    if not found:
        raise DataError(f"{path} lists no picture; put the original list there")
    return list(found.values())


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of every line with its number, from 1; empty lines are passed over."""
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise DataError(f"{path} is longer than {LARGEST_LIST:,} bytes, which no such list is")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; the folder of Stanford Online Products holds {' and '.join(LISTS.values())} beside "
            f"its folders of pictures, as its archive unpacks them"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); put the original list there") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield number, words


def _product(path: Path, number: int, words: Sequence[str]) -> Product:
    numbers, place = words[:3], words[-1]
    # isdecimal alone would let other scripts' digits pass.
    if len(words) != len(COLUMNS) or not all(word.isascii() and word.isdecimal() for word in numbers):
        raise DataError(
            f"{path}, line {number} is {' '.join(words)[:80]!r}; a line must hold three whole numbers and a path: "
            f"{' '.join(COLUMNS)}"
        )
    parts = PurePosixPath(place)
    if parts.is_absolute() or ".." in parts.parts or "\0" in place:
        raise DataError(f"{path}, line {number}: {place[:80]!r} leads out of the folder; paths must lie below it")
    return Product(path=place, product=int(words[1]))


def _products(folder: Path, train: Sequence[Product], test: Sequence[Product]) -> list[int]:
    """The numbers of all products, in order."""
    sides = [{each.product for each in split} for split in (train, test)]
    if both := sorted(sides[0] & sides[1]):
        raise DataError(
            f"{folder}: {len(both)} products are in both lists, the first is {both[0]}; the official split keeps every "
            f"product on one side, so put the original lists there"
        )
    return sorted(sides[0] | sides[1])


def _decoded(
    folder: Path, listed: Sequence[Product], side: int, on_error: OnError
) -> tuple[torch.Tensor, list[Product], list[str]]:
    root = Path(os.path.realpath(folder))
    images = torch.empty((len(listed), 3, side, side), dtype=torch.uint8)
    kept: list[Product] = []
    left_out: list[str] = []
    for each in listed:
        try:
            file = root / each.path
            if not Path(os.path.realpath(file)).is_relative_to(root):
                raise ImageFileError(
                    f"{file} is a link to a file outside {folder}; copy the picture into the folder instead"
                )
            pixels = read_picture(file, mode="RGB").pixels
        except ImageFileError as error:
            if on_error == "raise":
                raise ImageFileError(
                    f"{error} (--on-error skip, in Python on_error='skip', leaves such files out)"
                ) from error
            left_out.append(str(error))
            continue
        images[len(kept)] = to_tensor(resize(pixels, side))
        kept.append(each)
    return images[: len(kept)], kept, left_out
