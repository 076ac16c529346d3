"""The data sets that have a name, where their files are looked for, and `load`, which finds one or reads a folder."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from embattle.data.fitting import fit_set
from embattle.data.folder import OnError, load_folder
from embattle.data.imageset import SPLITS, ImageSet, Split
from embattle.errors import DataError
from embattle.registry import Registry

Progress = Callable[[str, int, int], None]


class Loader(Protocol):
    """How a named data set is loaded: one of its splits, from files below `root` (fetched there when missing)."""

    __name__: str

    def __call__(self, split: Split, *, root: Path, progress: Progress | None = None) -> ImageSet:
        """Load the split "train" or "test"."""
        ...


DATASETS: Registry = Registry("data set", "embattle.data")


def data_root(explicit: Path | str | None = None) -> Path:
    """The folder of the data sets: the one given, else the environment's EMBATTLE_DATA, else ~/.cache/embattle/data.

    Nothing is created. Below it lie folders such as mnist/ and fashion_mnist/.

    >>> data_root(Path("somewhere")).name
    'somewhere'
    """
    chosen = explicit or os.environ.get("EMBATTLE_DATA") or Path("~/.cache/embattle/data")
    return Path(os.path.expanduser(chosen))


def load(
    spec: str | Path,
    *,
    split: Split = "test",
    root: Path | str | None = None,
    channels: int | None = None,
    size: int | None = None,
    on_error: OnError = "raise",
    progress: Progress | None = None,
) -> ImageSet:
    """A named data set or a folder of pictures, as an `ImageSet`.

    Args:
        spec: "digits", "mnist", "fashion_mnist", or the path of a folder ("./mnist" for a folder called mnist).
        split: "train", "test" or "all". A folder without labels is never split.
        root: where named data sets lie; see `data_root`.
        channels: 1 (grey) or 3 (RGB); None keeps what the pictures have.
        size: side length in pixels to resize to once; None keeps the pictures' size (see `load_folder` for folders).
        on_error: for folders, "raise" at a damaged file or "skip" it with a note.
        progress: called as progress(file name, bytes so far, bytes in all) while a file is downloaded.

    Raises:
        DataError: no such data set or folder, files missing and not to be had, damaged, or fewer than 2 pictures.
        ImageFileError: a damaged picture in a folder.

    >>> load("digits")
    ImageSet('digits/test': 500 images 1x32x32, 10 classes)
    """
    if split not in SPLITS:
        raise DataError(f"split={split!r} is unknown; write one of {', '.join(SPLITS)}")
    if isinstance(spec, str) and spec in DATASETS:
        build = DATASETS[spec].build
        folder = data_root(root)
        if split == "all":
            found = _joined(
                spec, build("train", root=folder, progress=progress), build("test", root=folder, progress=progress)
            )
        else:
            found = build(split, root=folder, progress=progress)
        return fit_set(found, channels=channels, size=size)
    if not os.path.lexists(os.path.expanduser(spec)):
        near = difflib.get_close_matches(str(spec), [entry.name for entry in DATASETS], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(
            f"there is no data set and no folder called {str(spec)!r}.{hint} Data sets: "
            f"{', '.join(entry.name for entry in DATASETS)}; or give the path of a folder of pictures."
        )
    return load_folder(Path(spec), split=split, channels=channels, size=size, on_error=on_error)


def _joined(name: str, train: ImageSet, test: ImageSet) -> ImageSet:
    labels = None if train.labels is None or test.labels is None else torch.cat([train.labels, test.labels])
    return replace(train, name=f"{name}/all", images=torch.cat([train.images, test.images]), labels=labels,
                   ids=train.ids + test.ids)  # fmt: skip
