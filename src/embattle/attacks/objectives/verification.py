"""Match and Avoid: be taken for somebody else, or not be recognised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embattle.attacks.objective import Outputs, Targets, embedding_of, per_row
from embattle.attacks.objectives import OBJECTIVES
from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """Raises the similarity to a target (impersonation; item-to-item attack on a recommender).

    With FFM/FIM steps this is the feature-level attack of Zhong and Deng 2020, section III-A.

    Args:
        target: (N, C, H, W) pictures or (N, D) embeddings.
        threshold: success when the similarity reaches it; one number or (N,), higher = closer.
    """

    target: Tensor
    threshold: float | Tensor | None = None

    taps = (EMBEDDING,)
    stationary_at_clean = False

    @property
    def holds_embeddings(self) -> bool:
        """Whether the target is given as embeddings."""
        return self.target.ndim <= 3

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundPair:
        """Embeds the target in the member's space."""
        return BoundPair(self, member, tile, sign=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Avoid:
    """Lowers the similarity to a target, usually another picture of the same person or item (dodging).

    Args:
        target: (N, C, H, W) pictures or (N, D) embeddings.
        threshold: success when the similarity falls below it; one number or (N,), higher = closer.
    """

    target: Tensor
    threshold: float | Tensor | None = None

    taps = (EMBEDDING,)
    stationary_at_clean = False

    @property
    def holds_embeddings(self) -> bool:
        """Whether the target is given as embeddings."""
        return self.target.ndim <= 3

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundPair:
        """Embeds the target in the member's space."""
        return BoundPair(self, member, tile, sign=-1.0)


class BoundPair:
    """Match (sign +1) or Avoid (sign −1) in one embedder's space."""

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __init__(self, objective: Match | Avoid, member: Embedder, tile: int, *, sign: float) -> None:
        self.target = Targets(given=objective.target, what="target").single(member, tile)
        self.count = len(self.target)
        self.threshold = per_row(objective.threshold, self.count, "threshold", member.device)
        self.fingerprint = member.fingerprint
        self._sign = sign
        self._similarity = member.similarity

    def prepare(self, index: Tensor) -> Tree:
        """Each row's target and threshold."""
        rows = {"target": self.target[index]}
        return rows if self.threshold is None else rows | {"threshold": self.threshold[index]}

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """Plus or minus the similarity to the target, (n,)."""
        return self._sign * member.similarity.pair(embedding_of(out), rows["target"])

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """Whether the similarity reached (Match) or fell below (Avoid) the threshold."""
        if self.threshold is None:
            return None
        similarity = self._similarity.pair(embedding_of(out), rows["target"])
        threshold: Tensor = rows["threshold"]
        return similarity >= threshold if self._sign > 0 else similarity < threshold


def _pictures() -> Tensor:
    return torch.linspace(0, 1, 6 * 64).view(6, 1, 8, 8).flip(0) ** 2


_PAPER = "Zhong and Deng 2020, Towards Transferable Adversarial Attack against Deep Face Recognition, section III"
OBJECTIVES.register("match", example=lambda: Match(target=_pictures(), threshold=0.99), paper=_PAPER, access="gradient")(
    Match
)
OBJECTIVES.register("avoid", example=lambda: Avoid(target=_pictures(), threshold=0.5), paper=_PAPER, access="gradient")(
    Avoid
)
