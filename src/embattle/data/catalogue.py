"""The data sets that have a name, where their files are looked for, and `load`, which finds one or reads a folder."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from embattle.data.fitting import fit_set
from embattle.data.folder import OnError, load_folder
from embattle.data.imageset import SPLITS, ImageSet, Split
from embattle.data.online_products import is_sop, load_sop
from embattle.errors import DataError
from embattle.registry import Registry

Progress = Callable[[str, int, int], None]


class Loader(Protocol):
    """How a named data set is loaded: one of its splits, from files below `root`, fetched there where they can be.

    A set whose pictures have no common size also takes `size` and `on_error`, as `load` does.
    """

    __name__: str

    def __call__(self, split: Split, *, root: Path, progress: Progress | None = None) -> ImageSet:
        """Load the split "train" or "test"."""
        ...


DATASETS: Registry = Registry("data set", "embattle.data")
# How an archive calls its folder, where the set has a shorter name here.
_ARCHIVES = {"sop": "Stanford_Online_Products"}


def data_root(explicit: Path | str | None = None) -> Path:
    """The folder of the data sets: the one given, else the environment's EMBATTLE_DATA, else ~/.cache/embattle/data.

    Nothing is created. Below it lie folders such as mnist/ and fashion_mnist/.

    >>> data_root(Path("somewhere")).name
    'somewhere'
    """
    chosen = explicit or os.environ.get("EMBATTLE_DATA") or Path("~/.cache/embattle/data")
    return Path(os.path.expanduser(chosen))


def folder_of(name: str, root: Path | str | None = None) -> Path | None:
    """The folder in which the files of a named data set lie, or None; nothing is read or fetched.

    Args:
        name: of the data set; its folder is called the same, or as the set's own archive calls it.
        root: where named data sets lie; see `data_root`.

    >>> folder_of("mnist", "no/such/folder") is None
    True
    """
    names = (name, *filter(None, [_ARCHIVES.get(name)]))
    folders = [data_root(root) / each for each in names]
    return next((folder for folder in folders if folder.is_dir() and any(folder.iterdir())), None)


def has_split(spec: str | Path) -> bool:
    """Whether a data set comes with its own train and test split: named ones, and the folder of an SOP archive.

    >>> has_split("mnist"), has_split("no/such/folder")
    (True, False)
    """
    return spec in DATASETS or is_sop(Path(os.path.expanduser(spec)))


def has_size(spec: str | Path) -> bool:
    """Whether the pictures of a data set have a size of their own, so that none need be asked for.

    >>> has_size("mnist"), has_size("sop")
    (True, False)
    """
    return isinstance(spec, str) and spec in DATASETS and not _accepted(DATASETS[spec].build, size=None)


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
        spec: "clothing", "digits", "fashion_mnist", "mnist", "sop", or the path of a folder ("./mnist" for a folder
            called mnist); a folder with the lists of Stanford Online Products is read as that.
        split: "train", "test" or "all". A folder without labels is never split.
        root: where named data sets lie; see `data_root`.
        channels: 1 (grey) or 3 (RGB); None keeps what the pictures have.
        size: side length in pixels to resize to once; None keeps the pictures' size (see `load_folder` for folders;
            128 for "sop", whose pictures have no common size).
        on_error: for folders and "sop", "raise" at a damaged file or "skip" it with a note.
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
        options = {"root": data_root(root), "progress": progress, **_accepted(build, size=size, on_error=on_error)}
        found = (
            _joined(spec, build("train", **options), build("test", **options))
            if split == "all"
            else build(split, **options)
        )
        return fit_set(found, channels=channels, size=size)
    if not os.path.lexists(os.path.expanduser(spec)):
        near = difflib.get_close_matches(str(spec), [entry.name for entry in DATASETS], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(
            f"there is no data set and no folder called {str(spec)!r}.{hint} Data sets: "
            f"{', '.join(entry.name for entry in DATASETS)}; or give the path of a folder of pictures."
        )
    folder = Path(os.path.expanduser(spec))
    if is_sop(folder):
        parts: tuple[Split, ...] = ("train", "test") if split == "all" else (split,)
        sets = [load_sop(folder, part, size=size, on_error=on_error) for part in parts]
        return fit_set(sets[0] if len(sets) == 1 else _joined("sop", *sets), channels=channels, size=size)
    return load_folder(Path(spec), split=split, channels=channels, size=size, on_error=on_error)


def _accepted(build: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those of the options that a loader takes."""
    parameters = inspect.signature(build).parameters
    return {name: value for name, value in options.items() if name in parameters}


def _joined(name: str, train: ImageSet, test: ImageSet) -> ImageSet:
    labels = None if train.labels is None or test.labels is None else torch.cat([train.labels, test.labels])
    return replace(train, name=f"{name}/all", images=torch.cat([train.images, test.images]), labels=labels,
                   ids=train.ids + test.ids, notes=tuple(dict.fromkeys(train.notes + test.notes)))  # fmt: skip
