"""The system under audit: a model, a gallery it searches, and how the gallery's lists are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embattle import rng
from embattle.data import ImageSet
from embattle.embedders import Embedder
from embattle.errors import ConfigError, DataError, EmbattleError, ModelError
from embattle.index import ExactIndex
from embattle.similarity import Similarity
from embattle.vectors import check_embeddings


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What scenarios look at.

    Args:
        embedder: the model.
        images: the gallery's pictures, uint8.
        z: (M, D) their embeddings.
        index: search over them.
        k: length of a list's first page as the owner gave it.
        keep_own: whether an attacked item's own clean copy stays in the gallery.
        preserve: how many neighbours a semantics-preserving query attack keeps (G).
        xi: weight of keeping them; None: the paper's.
    """

    embedder: Embedder
    images: ImageSet
    z: Tensor
    index: ExactIndex
    k: int
    keep_own: bool
    preserve: int
    xi: float | None

    @classmethod
    def of(
        cls, embedder: Embedder, images: ImageSet, *, k: int, keep_own: bool, preserve: int = 5, xi: float | None = None
    ) -> Subject:
        """Embeds the gallery and checks that figures can be computed from it.

        Raises:
            ConfigError: k larger than the gallery.
            DataError: fewer than 4 pictures.
            ModelError: unusable embeddings.
        """
        check_gallery(images, k)
        z = check_embeddings(_embedded(embedder, images), embedder.similarity, f"embeddings of {embedder.name}")
        return cls(
            embedder=embedder, images=images, z=z, index=ExactIndex(z, images.ids, embedder.similarity), k=k,
            keep_own=keep_own, preserve=preserve, xi=xi,
        )  # fmt: skip

    @property
    def similarity(self) -> Similarity:
        """How embeddings are compared."""
        return self.embedder.similarity

    @property
    def ranked(self) -> int:
        """How many items a rank is counted in."""
        return len(self.images) - (not self.keep_own)

    @property
    def page(self) -> int:
        """The first page: k items, or 1 % of the gallery where that is more (the paper's "top" for lowering attacks)."""
        return page_length(len(self.images), self.k)

    def own(self, rows: Tensor) -> Tensor | None:
        """What is left out of each row's ranking: its own clean copy, or nothing."""
        return None if self.keep_own else rows

    def random_others(self, rows: Tensor, width: int, *, seed: int, stream: str) -> Tensor:
        """(n, width) random gallery positions per row, never the row itself, drawn by the row's id."""
        self._check_width(width, len(self.images) - 1)
        drawn = []
        for row in rows.tolist():
            keyed = rng.generator(seed, stream, self.images.ids[row])
            found = torch.from_numpy(keyed.choice(len(self.images) - 1, width, replace=False))
            drawn.append(found + (found >= row))
        return torch.stack(drawn)

    def random_neighbours(self, rows: Tensor, width: int, *, seed: int, stream: str) -> Tensor:
        """(n, width) random positions per row among its `page` nearest others."""
        near = self.neighbours(rows, self.page)
        self._check_width(width, near.shape[1])
        drawn = []
        for row, found in zip(rows.tolist(), near, strict=True):
            keyed = rng.generator(seed, stream, self.images.ids[row])
            drawn.append(found[torch.from_numpy(keyed.choice(len(found), width, replace=False))])
        return torch.stack(drawn)

    def neighbours(self, rows: Tensor, count: int) -> Tensor:
        """(n, count) positions of the nearest others of each row, nearest first."""
        count = min(count, len(self.images) - 1)
        _, places = self.index.nearest(self.z[rows], count + 1)
        # The row itself is usually first, but an identical picture may stand before it.
        others = [place[place != row][:count] for place, row in zip(places, rows.tolist(), strict=True)]
        return torch.stack(others)

    def _check_width(self, width: int, available: int) -> None:
        if width > available:
            raise ConfigError(
                f"{width} targets a picture were asked for, and this gallery of {len(self.images)} has {available} to "
                f"choose from; use a smaller number after .w or .m, or a larger gallery"
            )


def page_length(gallery: int, k: int) -> int:
    """The first page of a list: k items, or 1 % of the gallery where that is more.

    >>> page_length(500, 10), page_length(10_000, 10)
    (10, 100)
    """
    return min(max(k, math.ceil(gallery / 100)), gallery - 1)


def check_gallery(images: ImageSet, k: int) -> None:
    """Checks that a gallery is large enough for rankings and for its first page.

    Raises:
        ConfigError: k as large as the gallery, or larger.
        DataError: fewer than 4 pictures.
    """
    if len(images) < 4:
        raise DataError(f"{images.name} has {len(images)} pictures; an audit of rankings needs at least 4")
    if k >= len(images):
        raise ConfigError(f"k = {k} does not fit a gallery of {len(images)} pictures; give --k below {len(images)}")


def _embedded(embedder: Embedder, images: ImageSet) -> Tensor:
    try:
        return embedder.embed(images.images)
    except EmbattleError:
        raise
    except Exception as error:  # a stranger's module may raise anything; it is their input, not our bug
        shape = "x".join(map(str, images.images.shape[1:]))
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"{embedder.name} failed on pictures of {shape} ({type(error).__name__}: {reason}); check --size and "
            f"--channels, or look closer with: embattle doctor"
        ) from error
