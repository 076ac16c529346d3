"""`ImageSet`: pictures as uint8 with stable names, the one form in which data enters Embattle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from embattle.errors import DataError
from embattle.rng import generator

Split = Literal["train", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "test", "all")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """A set of pictures of one size.

    The pictures are held as uint8 because those are what is attacked and shown: an image that exists only as a float
    cannot be uploaded anywhere.

    Args:
        name: what to call the set in a report, for example "mnist/test".
        images: (N, C, H, W) uint8, C = 1 or 3, N at least 1.
        labels: (N,) int64 class numbers from 0, or None.
        classes: the names of the classes by number, or None.
        ids: one stable, unique name per picture, never a position in this object: "mnist/test/00017" or a file's path.
        notes: what a reader should know about how the pictures were loaded (frames dropped, files left out).

    Raises:
        DataError: these do not fit together.
    """

    name: str
    images: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] | None = None
    ids: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images = self.images
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
            given = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise DataError(f"{self.name}: images must be a uint8 tensor of the shape (N, C, H, W), not {given}")
        if images.shape[1] not in (1, 3) or 0 in images.shape:
            raise DataError(
                f"{self.name}: images have the shape {tuple(images.shape)}; allowed is (N, C, H, W) with C = 1 (grey) "
                "or 3 (RGB) and no side of length 0"
            )
        self._check_ids()
        self._check_labels()

    def _check_ids(self) -> None:
        if len(self.ids) != len(self.images):
            raise DataError(f"{self.name}: {len(self.images)} images came with {len(self.ids)} ids; each needs its own")
        if len(self._position) != len(self.ids):
            twice = next(i for position, i in enumerate(self.ids) if self._position[i] != position)
            raise DataError(f"{self.name}: the id {twice!r} is given to two images; ids must be unique")

    def _check_labels(self) -> None:
        if self.labels is None:
            if self.classes is not None:
                raise DataError(
                    f"{self.name}: class names were given without labels; give both, or labels alone, or neither"
                )
            return
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (len(self.images),):
            raise DataError(
                f"{self.name}: labels must be int64 of the shape ({len(self.images)},), "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or (self.classes is not None and high >= len(self.classes)):
            allowed = f"0 to {len(self.classes) - 1}" if self.classes is not None else "0 and above"
            raise DataError(f"{self.name}: labels lie between {low} and {high}; allowed are {allowed}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        kind = "unlabelled" if self.labels is None else f"{len(torch.unique(self.labels))} classes"
        return f"ImageSet({self.name!r}: {len(self)} images {self.channels}x{self.size[0]}x{self.size[1]}, {kind})"

    @property
    def labelled(self) -> bool:
        """Whether every picture has a class."""
        return self.labels is not None

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids)}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over pixels, labels, class names and ids; the same set gives the same one on every machine."""
        digest = hashlib.sha256()
        header = {"shape": list(self.images.shape), "classes": self.classes, "ids": self.ids, "labelled": self.labelled}
        digest.update(json.dumps(header, sort_keys=True).encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def some(self, count: int | None) -> ImageSet:
        """A choice of `count` pictures that depends on the set alone, in its order; all for None or more than it has.

        Raises:
            DataError: fewer than one.
        """
        if count is None or count >= len(self):
            return self
        order = generator(0, "some", self.fingerprint).permutation(len(self))
        return self.take(sorted(order[: max(count, 0)].tolist()))

    def take(self, indices: Sequence[int] | Tensor) -> ImageSet:
        """The pictures at these positions, in this order, with their ids, labels and the same class names.

        Args:
            indices: positions 0..N-1, each at most once, at least one.

        Raises:
            DataError: no position, one outside the set, or one given twice.
        """
        index = torch.as_tensor(indices)
        if index.numel() == 0:
            raise DataError(f"{self.name}: no image was asked for; a set needs at least one")
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise DataError(
                f"{self.name}: positions must be a list of whole numbers, not {index.dtype} {tuple(index.shape)}"
            )
        if int(index.min()) < 0 or int(index.max()) >= len(self):
            raise DataError(
                f"{self.name}: positions {int(index.min())} to {int(index.max())} were asked for, "
                f"but it has {len(self)} images (0 to {len(self) - 1})"
            )
        index = index.to(torch.int64)
        return replace(
            self,
            images=self.images[index],
            labels=None if self.labels is None else self.labels[index],
            ids=tuple(self.ids[i] for i in index.tolist()),
        )

    def positions(self, ids: Sequence[str]) -> Tensor:
        """Where the pictures with these ids are: (len(ids),) int64.

        Raises:
            DataError: an id that this set does not have.
        """
        unknown = [name for name in ids if name not in self._position]
        if unknown:
            raise DataError(
                f"{self.name}: no image has the id {unknown[0]!r} ({len(unknown)} unknown in all); "
                f"ids here look like {self.ids[0]!r}"
            )
        return torch.tensor([self._position[name] for name in ids], dtype=torch.int64)

    def shared_with(self, other: ImageSet) -> int:
        """How many pictures both sets hold: the same id, and the same pixels."""
        common = [name for name in self.ids if name in other._position]
        if self.images.shape[1:] != other.images.shape[1:]:
            return 0
        here, there = self.images[self.positions(common)], other.images[other.positions(common)]
        return int((here == there).flatten(1).all(1).sum())

    def pixels(self, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """The pictures as an embedder takes them: (n, C, H, W) float32 in [0, 1].

        Args:
            indices: positions 0..N-1; None for all. Unlike in `take`, a position may be repeated.
        """
        chosen = self.images if indices is None else self.images[torch.as_tensor(indices, dtype=torch.int64)]
        return chosen.to(torch.float32) / 255
