"""CA+ / CA−: the attacked picture is an item of the gallery, and its rank for chosen queries is to rise or to fall."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embattle.attacks.objective import (
    Direction,
    Outputs,
    Targets,
    check_direction,
    embedding_of,
    gallery_embeddings,
)
from embattle.attacks.objectives import OBJECTIVES
from embattle.attacks.objectives.own_copy import check_own
from embattle.attacks.objectives.tables import Library, Tables
from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError
from embattle.similarity import against


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateRank:
    """Moves an item's rank in the lists of chosen queries (CA+ and CA−, Zhou et al. 2020, Eq. 4 and 7).

    The loss is minus the mean over queries and gallery of the hinge [s(q, x) − s(q, c)]₊ (raise) or [s(q, c) − s(q, x)]₊
    (lower), s being the similarity. For a fixed query that is a piecewise-linear function of the one number s(q, c): the
    gallery's similarities are sorted once with their prefix sums, and a step costs a binary search instead of a sum over
    the gallery.

    Args:
        queries: (N, W, C, H, W') pictures or (N, W, D) embeddings; (N, C, H, W') and (N, D) mean one query per row.
        gallery: (M, C, H, W') pictures or (M, D) embeddings the item competes with.
        direction: "raise" (towards rank 0) or "lower".
        k: success when the item is among the first k for every query (raise), or among the first k for none (lower).
        own: (N,) gallery positions of the attacked items' own clean copies, to leave them out; None keeps them, as the
            paper does.

    Raises:
        ConfigError: shapes that do not fit, an unknown direction, k outside 1..M.
    """

    queries: Tensor
    gallery: Tensor
    direction: Direction = "raise"
    k: int | None = None
    own: Tensor | None = None

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __post_init__(self) -> None:
        check_direction(self.direction)

    @property
    def holds_embeddings(self) -> bool:
        """Whether queries or gallery are embeddings."""
        return self.queries.ndim <= 3 or self.gallery.ndim == 2

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundCandidateRank:
        """Embeds queries and gallery in the member's space."""
        return BoundCandidateRank(self, member, tile)


class BoundCandidateRank:
    """CandidateRank in one embedder's space."""

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __init__(self, objective: CandidateRank, member: Embedder, tile: int) -> None:
        self.queries = Targets(given=objective.queries, what="queries").embedded(member, tile)
        self.gallery = gallery_embeddings(objective.gallery, member, tile)
        self.raising = objective.direction == "raise"
        self.count = len(self.queries)
        self.own = check_own(objective.own, self.count, len(self.gallery))
        self.size = len(self.gallery) - (self.own is not None)
        self.k = check_k(objective.k, self.size)
        self.fingerprint = member.fingerprint
        self._similarity = member.similarity
        self._library = Library(against(member.similarity, self.gallery))

    def prepare(self, index: Tensor) -> Tree:
        """Each row's queries (n, W, D) and their tables."""
        queries = self.queries[index]
        own = None if self.own is None else self.own[index]
        return {"queries": queries, "tables": self._library.tables(queries, own)}

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """Minus the mean hinge, (n,); its derivative with respect to s(q, c) is the rank itself, as a fraction."""
        similarity = member.similarity.pair(embedding_of(out).unsqueeze(1), rows["queries"]).double()
        tables: Tables = rows["tables"]
        count, below, total = tables.below(similarity, side="right" if self.raising else "left")
        above = total - below - (self.size - count) * similarity
        hinge = above if self.raising else count * similarity - below
        return -(hinge.mean(-1) / self.size).to(torch.float32)

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """Whether the item is within (raise) or outside (lower) the first k of every query's list."""
        if self.k is None:
            return None
        similarity = self._similarity.pair(embedding_of(out).unsqueeze(1), rows["queries"])
        count, _, _ = rows["tables"].below(similarity, side="right")
        within: Tensor = self.size - count < self.k
        return within.all(-1) if self.raising else (~within).all(-1)


def check_k(k: int | None, size: int) -> int | None:
    """Returns k, or a ConfigError when a list of `size` items has no first k."""
    if k is not None and not 1 <= k <= size:
        raise ConfigError(f"k = {k} does not fit a gallery of {size} item(s); give 1 <= k <= {size}")
    return k


def _example() -> CandidateRank:
    pictures = torch.linspace(0, 1, 12 * 64).view(12, 1, 8, 8).flip(0)
    return CandidateRank(queries=pictures[:6].unsqueeze(1) ** 2, gallery=pictures.sqrt(), direction="raise", k=3)


OBJECTIVES.register(
    "candidate-rank",
    example=_example,
    paper="Zhou et al. 2020, Adversarial Ranking Attack and Defense, section 3.1",
    access="gradient",
    differs="mean instead of sum over queries and gallery (no effect on sign steps)",
)(CandidateRank)
