"""Similarities between embeddings: higher always means closer, so polarity is a property of the type, not of a flag.

Thresholds everywhere in Embattle are in the units defined here. `distance` turns a similarity into the usual distance for
display only; ranks and objectives are built on similarities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from embattle.errors import ConfigError

# Similarities against a gallery are computed this many columns at a time: memory stays bounded, and because the shape of
# every product is fixed by the gallery alone, a row's numbers do not depend on who else is asked about.
COLUMN_TILE = 16_384
# Smallest norm we divide by; below it an embedding has no direction.
_TINY = 1e-12
# A float32 vector this close to length 1 is a normalised one.
_UNIT = 5e-7


@runtime_checkable
class Similarity(Protocol):
    """How close two embeddings are; higher = closer."""

    @property
    def name(self) -> str:
        """What reports and configurations call it."""
        ...

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        """Similarity of (..., D) with (..., D) -> (...), broadcasting."""
        ...

    def cross(self, a: Tensor, gallery: Tensor) -> Tensor:
        """Similarity of every row of (n, D) with every row of (M, D) -> (n, M)."""
        ...

    def distance(self, similarity: Tensor) -> Tensor:
        """The distance people quote for a similarity."""
        ...


@dataclass(frozen=True)
class Cosine:
    """Cosine of the angle between two embeddings, in [-1, 1]; its distance is 1 - cosine.

    >>> Cosine().pair(torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0])).item()
    1.0
    """

    name: str = "cosine"

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine of (..., D) and (..., D) -> (...)."""
        return (_unit(a) * _unit(b)).sum(-1)

    def cross(self, a: Tensor, gallery: Tensor) -> Tensor:
        """Cosine of (n, D) with each row of (M, D) -> (n, M)."""
        return self.against(gallery)(a)

    def against(self, gallery: Tensor) -> Against:
        """`cross` with a fixed gallery, which is normalised once."""
        return _CosineAgainst(gallery)

    def distance(self, similarity: Tensor) -> Tensor:
        """1 - cosine, in [0, 2]."""
        return 1 - similarity


@dataclass(frozen=True)
class Euclidean:
    """Negative Euclidean distance between two embeddings, in (-inf, 0].

    >>> Euclidean().pair(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])).item()
    -5.0
    """

    name: str = "euclidean"

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        """Minus the distance of (..., D) and (..., D) -> (...)."""
        return -_safe_norm(((a - b) ** 2).sum(-1))

    def cross(self, a: Tensor, gallery: Tensor) -> Tensor:
        """Minus the distance of (n, D) to each row of (M, D) -> (n, M)."""
        return self.against(gallery)(a)

    def against(self, gallery: Tensor) -> Against:
        """`cross` with a fixed gallery, whose centre and lengths are computed once."""
        return _EuclideanAgainst(gallery)

    def distance(self, similarity: Tensor) -> Tensor:
        """Euclidean distance, in [0, inf)."""
        return -similarity


SIMILARITIES: dict[str, Similarity] = {"cosine": Cosine(), "euclidean": Euclidean()}


def by_name(similarity: str | Similarity) -> Similarity:
    """The similarity called "cosine" or "euclidean"; an object that already is one is passed through.

    Raises:
        ConfigError: another name.
    """
    if not isinstance(similarity, str):
        return similarity
    if similarity not in SIMILARITIES:
        raise ConfigError(f"similarity {similarity!r} is not known; write one of: {', '.join(sorted(SIMILARITIES))}")
    return SIMILARITIES[similarity]


def euclidean_distance(similarity: Similarity, values: Tensor) -> Tensor:
    """The Euclidean distances that similarities stand for: under the cosine those of embeddings of length 1, in [0, 2].

    >>> euclidean_distance(Cosine(), torch.tensor([1.0, 0.5, -1.0])).tolist()[1:]
    [1.0, 2.0]
    """
    return _safe_norm(2 * (1 - values)) if similarity.name == "cosine" else similarity.distance(values)


class Against(Protocol):
    """A similarity with a fixed gallery (M, D): what depends on the gallery alone is computed once."""

    def __call__(self, a: Tensor) -> Tensor:
        """Similarity of (n, D) with every row of the gallery -> (n, M)."""
        ...

    def weighted(self, a: Tensor, similarities: Tensor, weights: Tensor) -> Tensor:
        """Σ over the gallery of (n, M) constant weights times similarities, (n,), differentiable by `a`.

        `similarities` are those of `a`, without gradient: only (n, D) enters autograd.
        """
        ...


def against(similarity: Similarity, gallery: Tensor) -> Against:
    """`cross` with a fixed gallery (M, D): what depends on the gallery alone is computed once, where the similarity can.

    >>> against(Cosine(), torch.eye(2))(torch.tensor([[3.0, 0.0]])).tolist()
    [[1.0, 0.0]]
    """
    fixed: Against | None = getattr(similarity, "against", lambda _: None)(gallery)
    # Somebody's own similarity may know a fixed gallery and not the weighted sum.
    return fixed if fixed is not None and hasattr(fixed, "weighted") else _AnyAgainst(similarity, gallery)


@dataclass(frozen=True)
class _AnyAgainst:
    similarity: Similarity
    gallery: Tensor

    def __call__(self, a: Tensor) -> Tensor:
        return self.similarity.cross(a, self.gallery)

    def weighted(self, a: Tensor, similarities: Tensor, weights: Tensor) -> Tensor:
        return (self(a) * weights).sum(-1)


class _CosineAgainst:
    def __init__(self, gallery: Tensor) -> None:
        length = gallery.norm(dim=-1)
        # A gallery may be large, and stores usually hold it normalised: then no second one is made.
        self._unit = gallery if bool(((length - 1).abs() <= _UNIT).all()) else _unit(gallery)

    def __call__(self, a: Tensor) -> Tensor:
        return _unit(a) @ self._unit.T

    def weighted(self, a: Tensor, similarities: Tensor, weights: Tensor) -> Tensor:
        # A sum of cosines is the cosine's numerator with the weighted sum of the gallery.
        return (_unit(a) * (weights @ self._unit)).sum(-1)


class _EuclideanAgainst:
    def __init__(self, gallery: Tensor) -> None:
        # |a|^2 - 2ab + |b|^2 loses digits when a and b are far from the origin and close together: measuring from the
        # gallery's mean keeps the numbers small. One matrix product instead of an (n, M, D) difference.
        self._centre = gallery.mean(0)
        self._centred = gallery - self._centre
        self._squares = (self._centred * self._centred).sum(-1)

    def __call__(self, a: Tensor) -> Tensor:
        a = a - self._centre
        own = (a * a).sum(-1, keepdim=True)
        parts = zip(self._centred.split(COLUMN_TILE), self._squares.split(COLUMN_TILE), strict=True)
        # Every pass over (n, M) numbers costs about as much as the product: all that can be is done in place.
        return _columns([-_safe_norm(torch.addmm(squares, a, part.T, alpha=-2).add_(own)) for part, squares in parts])

    def weighted(self, a: Tensor, similarities: Tensor, weights: Tensor) -> Tensor:
        # The slope of -|a - b| is (a - b) / -|a - b|; the clamp of `_safe_norm` has none.
        pull = (weights / similarities).masked_fill_(similarities >= -(_TINY**0.5), 0)
        centred = (a - self._centre).detach()
        slope = centred * pull.sum(-1, keepdim=True) - pull @ self._centred
        return (similarities * weights).sum(-1) + ((a - a.detach()) * slope).sum(-1)


def _columns(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _unit(z: Tensor) -> Tensor:
    length: Tensor = z.norm(dim=-1, keepdim=True)
    return z / length.clamp_min(_TINY)


def _safe_norm(squared: Tensor) -> Tensor:
    # The square root has an infinite slope at 0 (an image compared with its own copy): the clamp has slope 0 there.
    return squared.clamp_min(_TINY).sqrt()
