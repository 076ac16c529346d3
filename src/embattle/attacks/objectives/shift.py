"""Shift: move the embedding away from where it was, towards nothing in particular."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embattle.attacks.objective import Outputs, Targets, embedding_of, per_row
from embattle.attacks.objectives import OBJECTIVES
from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder


@dataclass(frozen=True, kw_only=True, eq=False)
class Shift:
    """Maximal distance from an anchor, by default the clean embedding (max-shift, Zhou et al. 2020, section 3.4).

    At the clean picture this loss has its minimum and no gradient, so an attack starts it from a seeded nudge of ε/1000.

    Args:
        anchor: (N, C, H, W) pictures, usually the clean ones, or (N, D) embeddings.
        threshold: success when the similarity to the anchor falls below it; one number or (N,), higher = closer.
    """

    anchor: Tensor
    threshold: float | Tensor | None = None

    taps = (EMBEDDING,)
    stationary_at_clean = True

    @property
    def holds_embeddings(self) -> bool:
        """Whether the anchor is given as embeddings."""
        return self.anchor.ndim <= 3

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundShift:
        """Embeds the anchor in the member's space."""
        return BoundShift(self, member, tile)


class BoundShift:
    """Shift in one embedder's space."""

    taps = (EMBEDDING,)
    stationary_at_clean = True

    def __init__(self, objective: Shift, member: Embedder, tile: int) -> None:
        self.anchor = Targets(given=objective.anchor, what="anchor").single(member, tile)
        self.count = len(self.anchor)
        self.threshold = per_row(objective.threshold, self.count, "threshold", member.device)
        self.fingerprint = member.fingerprint
        self._similarity = member.similarity

    def prepare(self, index: Tensor) -> Tree:
        """Each row's anchor and threshold."""
        rows = {"anchor": self.anchor[index]}
        return rows if self.threshold is None else rows | {"threshold": self.threshold[index]}

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """The distance to the anchor, (n,)."""
        return member.similarity.distance(member.similarity.pair(embedding_of(out), rows["anchor"]))

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """Whether the similarity to the anchor fell below the threshold."""
        if self.threshold is None:
            return None
        threshold: Tensor = rows["threshold"]
        return self._similarity.pair(embedding_of(out), rows["anchor"]) < threshold


OBJECTIVES.register(
    "shift",
    example=lambda: Shift(anchor=torch.linspace(0, 1, 6 * 64).view(6, 1, 8, 8), threshold=0.9),
    paper="Zhou et al. 2020, Adversarial Ranking Attack and Defense, section 3.4",
    access="gradient",
    differs="starts from a seeded nudge: at the clean picture the published start has no gradient but rounding noise",
)(Shift)
