"""What the attacker computes gradients on: one embedder, or several with weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from embattle.embedders import Embedder
from embattle.rng import Rows


@runtime_checkable
class Surrogate(Protocol):
    """An Embedder is a surrogate with one member; ensembles and edited models have the same four names."""

    @property
    def members(self) -> tuple[Embedder, ...]:
        """The embedders, each with its own input size, similarity and gallery."""
        ...

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each member's loss counts."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether two passes over one picture may differ (dropout masks)."""
        ...

    def opened(self, rows: Rows) -> AbstractContextManager[None]:
        """The members frozen, with any edits keyed by the rows; everything restored on leaving."""
        ...
