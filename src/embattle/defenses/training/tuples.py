"""Tuples of pictures as one: what an attack on a triplet's distances is for the loop.

The loop attacks rows one by one, and the distances of a triplet couple three pictures. Laid below one another they are one
tall picture, and their embeddings behind one another are its embedding; the budget, a bound for every pixel, is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from embattle.attacks.objective import Outputs, embedding_of
from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder, Learner


class _Tall(nn.Module):
    def __init__(self, embedder: Embedder, count: int) -> None:
        super().__init__()
        self.module = embedder.module
        self.embedder = embedder
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, k·H, W) -> (n, k·D)."""
        n, channels, _, width = x.shape
        pictures = x.unflatten(2, (self.count, -1)).transpose(1, 2).reshape(n * self.count, channels, -1, width)
        return self.embedder.outputs(pictures)[EMBEDDING].reshape(n, -1)


def tall_embedder(embedder: Embedder, count: int) -> Embedder:
    """An Embedder of `count` pictures laid below one another: (n, C, count·H, W) -> (n, count·D)."""
    # The module inside prepares its pictures itself.
    return Learner(_Tall(embedder, count), similarity=embedder.similarity, channels=embedder.channels, name=embedder.name)


def stacked(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Pictures (B, C, H, W) at k lists of n places -> (n, C, k·H, W)."""
    return torch.cat([x[place] for place in places], dim=2)


def apart(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """The inverse of `stacked`: (n, C, k·H, W) -> k times (n, C, H, W)."""
    return x.chunk(count, dim=2)


@dataclass(frozen=True, kw_only=True, eq=False)
class TupleObjective(ABC):
    """What an attacker wants of the distances within each of n tuples of `count` pictures; subclasses give `gain`.

    Args:
        tuples: n.
    """

    tuples: int

    count: ClassVar[int]
    taps = (EMBEDDING,)
    stationary_at_clean = False
    holds_embeddings = False

    @abstractmethod
    def gain(self, parts: Sequence[Tensor], member: Embedder) -> Tensor:
        """From `count` embeddings (n, D) of each tuple's pictures to (n,), higher = better for the attacker."""

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundTuples:
        """Nothing is embedded beforehand."""
        return BoundTuples(self, member)


class BoundTuples:
    """A TupleObjective on one model."""

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __init__(self, objective: TupleObjective, member: Embedder) -> None:
        self.count, self.fingerprint = objective.tuples, member.fingerprint
        self._objective = objective

    def prepare(self, index: Tensor) -> Tree:
        """No constants."""
        return {}

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """The objective's gain, (n,)."""
        return self._objective.gain(embedding_of(out).chunk(self._objective.count, dim=1), member)

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """There is no criterion: training wants the worst."""
        return None
