"""A user's own pictures: a flat folder (no labels), or one sub-folder per class (labels)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from embattle.data.fitting import check_memory, check_shape
from embattle.data.imageset import ImageSet, Split
from embattle.errors import DataError, ImageFileError
from embattle.images import Header, read_header, read_picture, resize, to_tensor

OnError = Literal["raise", "skip"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tiff", ".tif")
DEFAULT_SIZE = 128
TEST_SHARE = 0.2
_FEWEST = 2


@dataclass(frozen=True)
class _File:
    """One picture: its id (the path below the folder, with slashes), where it is, and what its header says."""

    id: str
    path: Path
    header: Header


class _Notes:
    """Things to tell the reader, one sentence per kind with a count and the first case."""

    def __init__(self) -> None:
        self._cases: dict[str, list[str]] = {}

    def add(self, kind: str, case: str = "") -> None:
        self._cases.setdefault(kind, []).append(case)

    def sentences(self) -> tuple[str, ...]:
        return tuple(
            kind if not cases[0] else f"{kind}: {len(cases)}, the first is {cases[0]}"
            for kind, cases in self._cases.items()
        )


def load_folder(
    folder: Path,
    *,
    split: Split = "all",
    channels: int | None = None,
    size: int | None = None,
    on_error: OnError = "raise",
) -> ImageSet:
    """The pictures below a folder, decoded once to one size, in the order of their paths.

    When every picture lies in a sub-folder and there are at least two of these, their names are the classes; otherwise
    the set has no labels. A labelled folder is split by the sha256 of each id, 80 % train and 20 % test, so that adding
    or removing pictures never moves another one across. Hidden files and files without a picture's extension are left
    out. Links are followed only to files inside the folder.

    Args:
        folder: the folder.
        split: "train", "test" or "all"; a folder without labels is given whole whatever the split.
        channels: 1 or 3; None gives 1 if all pictures are grey, else 3.
        size: side length in pixels to pad and resize to; None keeps a size all pictures share, else 128.
        on_error: "raise" at the first file that is no picture, or "skip" such files with a note.

    Raises:
        DataError: no such folder, fewer than 2 pictures, or more memory needed than allowed.
        ImageFileError: a damaged file, or a link that leaves the folder, under on_error="raise".
    """
    check_shape(channels, size)
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error={on_error!r} is unknown; write on_error='raise' or on_error='skip'")
    root = _root(folder)
    notes = _Notes()
    files = _scan(root, folder, on_error, notes)
    _check_count(folder, len(files), notes)
    classes = _classes([file.id for file in files], notes)
    height, width = (size, size) if size is not None else _shared_size(files, notes)
    depth = channels or (1 if all(file.header.grey for file in files) else 3)
    chosen = (
        files if classes is None or split == "all" else [file for file in files if _in_test(file.id) == (split == "test")]
    )
    if len(chosen) < _FEWEST:
        raise DataError(
            f"the {split} split of {folder} has {len(chosen)} of its {len(files)} pictures, at least {_FEWEST} are "
            "needed; add pictures, or use all of them with split='all'"
        )
    check_memory(str(folder), len(chosen), depth, height, width)
    images, kept = _decoded(chosen, depth, (height, width), on_error, notes)
    _check_count(folder, len(kept), notes)
    names = [file.id for file in kept]
    return ImageSet(
        name=root.name if classes is None or split == "all" else f"{root.name}/{split}",
        images=images,
        labels=None if classes is None else torch.tensor([classes.index(name.split("/", 1)[0]) for name in names]),
        classes=classes,
        ids=tuple(names),
        notes=notes.sentences(),
    )


def _root(folder: Path) -> Path:
    # os.path's functions, unlike Path's, take unreadable parents and endless links for "not there".
    given = os.path.expanduser(folder)
    if not os.path.exists(given):
        raise DataError(
            f"there is no folder {folder}; give the path of a folder of pictures, or digits, mnist or fashion_mnist"
        )
    if not os.path.isdir(given):
        raise DataError(f"{folder} is a file, not a folder; give a folder of pictures (unpack an archive first)")
    return Path(os.path.realpath(given))


def _check_count(folder: Path, count: int, notes: _Notes) -> None:
    if count >= _FEWEST:
        return
    found = "no picture" if count == 0 else "only one picture"
    why = "".join(f" ({sentence})" for sentence in notes.sentences())
    raise DataError(
        f"{folder} holds {found}{why}; at least {_FEWEST} images are needed, as files ending in {' '.join(EXTENSIONS)}"
    )


def _scan(root: Path, folder: Path, on_error: OnError, notes: _Notes) -> list[_File]:
    """Every picture below `root` whose header can be read, sorted by id."""
    found: list[_File] = []
    for path in _candidates(root, folder, notes):
        name = _id(path, root)
        try:
            if not Path(os.path.realpath(path)).is_relative_to(root):
                raise ImageFileError(
                    f"{folder / name} is a link to a file outside {folder}; copy the picture into the folder instead"
                )
            found.append(_File(name, path, read_header(path)))
        except ImageFileError as error:
            if on_error == "raise":
                raise _with_hint(error) from error
            notes.add("files that could not be read were left out", str(error))
    return sorted(found, key=lambda file: file.id)


def _with_hint(error: ImageFileError) -> ImageFileError:
    return ImageFileError(f"{error} (--on-error skip, in Python on_error='skip', leaves such files out)")


def _candidates(root: Path, folder: Path, notes: _Notes) -> list[Path]:
    def unreadable(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be listed: {error.strerror}; make it readable, or take it out of {folder}"
        )

    candidates: list[Path] = []
    for parent, folders, files in os.walk(root, onerror=unreadable):
        here = Path(parent)
        for name in sorted(folders):
            if (here / name).is_symlink():
                notes.add("links to folders are not followed", _id(here / name, root))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(files):
            if name.startswith("."):
                continue
            if name.lower().endswith(EXTENSIONS):
                candidates.append(here / name)
            else:
                notes.add("files without the extension of a picture were left out", _id(here / name, root))
    return sorted(candidates)


def _id(path: Path, root: Path) -> str:
    # File names are bytes; those that are no UTF-8 get escapes, because ids go into JSON and HTML.
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _classes(ids: Sequence[str], notes: _Notes) -> tuple[str, ...] | None:
    inside = [name.split("/", 1)[0] for name in ids if "/" in name]
    classes = tuple(sorted(set(inside)))
    if len(inside) == len(ids) and len(classes) >= 2:
        return classes
    if inside and len(inside) < len(ids):
        notes.add(
            f"some pictures lie in sub-folders ({len(inside)}) and some do not ({len(ids) - len(inside)}), "
            "so sub-folders are not taken as classes: the set has no labels"
        )
    elif inside:
        notes.add(f"all pictures lie in one sub-folder, {classes[0]!r}; one class is no labelling: the set has no labels")
    return None


def _shared_size(files: Sequence[_File], notes: _Notes) -> tuple[int, int]:
    sizes = {(file.header.height, file.header.width) for file in files}
    if len(sizes) == 1:
        return sizes.pop()
    notes.add(
        f"the pictures have {len(sizes)} different sizes; each was fitted once into {DEFAULT_SIZE} x {DEFAULT_SIZE} "
        "with white borders (--size, in Python size=, chooses another side)"
    )
    return DEFAULT_SIZE, DEFAULT_SIZE


def _in_test(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < TEST_SHARE * 2**64


def _decoded(
    files: Sequence[_File], channels: int, size: tuple[int, int], on_error: OnError, notes: _Notes
) -> tuple[torch.Tensor, list[_File]]:
    images = torch.empty((len(files), channels, *size), dtype=torch.uint8)
    kept: list[_File] = []
    for file in files:
        try:
            picture = read_picture(file.path, mode="L" if channels == 1 else "RGB")
        except ImageFileError as error:
            if on_error == "raise":
                raise _with_hint(error) from error
            notes.add("files that could not be read were left out", str(error))
            continue
        for note in picture.notes:
            notes.add("pictures used in part", note)
        images[len(kept)] = to_tensor(resize(picture.pixels, size))
        kept.append(file)
    return images[: len(kept)], kept
