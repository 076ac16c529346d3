"""QA+ / QA−: the attacked picture is the query, and chosen candidates are to rise or fall in its list."""

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
from embattle.attacks.objectives.candidate_rank import check_k
from embattle.attacks.objectives.own_copy import check_own
from embattle.attacks.tree import Tree
from embattle.closer import Closer, above, count
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError
from embattle.similarity import against

# The paper's balance between moving C and keeping C_SP (section 4.1).
_PAPER_XI = {"raise": 1.0, "lower": 100.0}
# Queries whose list is gone through at a time: their masks stay in the cache.
_ROWS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryRank:
    """Moves candidates in the attacked query's own list (QA±; SP-QA± with `preserve`; Zhou et al. 2020, Eq. 9, 11 and 12).

    Args:
        candidates: (N, m, C, H, W) pictures or (N, m, D) embeddings; (N, C, H, W) and (N, D) mean one candidate per row.
        gallery: (M, C, H, W) pictures or (M, D) embeddings in the list.
        direction: "raise" (candidates towards rank 0) or "lower".
        preserve: (N, G, ...) items whose ranks are to stay low, so that the list still looks like the query's (C_SP);
            None is the plain attack.
        xi: weight ξ of keeping them; None takes the paper's 1 (raise) or 100 (lower).
        k: success when every candidate is among the first k (raise), or none is (lower), and the mean rank of the
            preserved items, if any, is below k.
        own: (N,) gallery positions of the queries' own clean copies, to leave them out; None keeps them (the paper).

    Raises:
        ConfigError: shapes that do not fit, an unknown direction, k outside 1..M, ξ negative.
    """

    candidates: Tensor
    gallery: Tensor
    direction: Direction = "raise"
    preserve: Tensor | None = None
    xi: float | None = None
    k: int | None = None
    own: Tensor | None = None

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __post_init__(self) -> None:
        check_direction(self.direction)
        if self.xi is not None and not 0 <= self.xi < float("inf"):
            raise ConfigError(f"xi must be a finite number of at least 0, not {self.xi!r}")
        if self.preserve is not None and len(self.preserve) != len(self.candidates):
            raise ConfigError(
                f"preserve has {len(self.preserve)} row(s), candidates {len(self.candidates)}; give one set per row"
            )

    @property
    def holds_embeddings(self) -> bool:
        """Whether candidates, preserved items or gallery are embeddings."""
        preserved = self.preserve is not None and self.preserve.ndim <= 3
        return self.candidates.ndim <= 3 or self.gallery.ndim == 2 or preserved

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundQueryRank:
        """Embeds candidates, preserved items and gallery in the member's space."""
        return BoundQueryRank(self, member, tile)


class BoundQueryRank:
    """QueryRank in one embedder's space."""

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __init__(self, objective: QueryRank, member: Embedder, tile: int) -> None:
        self.candidates = Targets(given=objective.candidates, what="candidates").embedded(member, tile)
        self.gallery = gallery_embeddings(objective.gallery, member, tile)
        self.raising = objective.direction == "raise"
        self.xi = _PAPER_XI[objective.direction] if objective.xi is None else objective.xi
        self.preserve = None
        if objective.preserve is not None and self.xi > 0:
            self.preserve = Targets(given=objective.preserve, what="preserve").embedded(member, tile)
        self.count = len(self.candidates)
        own = check_own(objective.own, self.count, len(self.gallery))
        self.own = own if own is None else own.to(member.device)
        self.size = len(self.gallery) - (self.own is not None)
        self.k = check_k(objective.k, self.size)
        self.fingerprint = member.fingerprint
        self._similarity = member.similarity
        self._against_gallery = against(member.similarity, self.gallery)
        self._closer = Closer(self.gallery, member.similarity)

    def prepare(self, index: Tensor) -> Tree:
        """Each row's candidates (n, m, D), preserved items (n, G, D) and own gallery position (n,)."""
        rows = {"candidates": self.candidates[index]}
        if self.preserve is not None:
            rows["preserve"] = self.preserve[index]
        if self.own is not None:
            rows["own"] = self.own[index]
        return rows

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """Minus the mean hinge over candidates and gallery, minus ξ times that of the preserved items, (n,)."""
        z = embedding_of(out)
        return self._loss(z, self._against_gallery(z.detach()), rows)

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """Whether all candidates are within (raise) or outside (lower) the first k, and the preserved items stay within."""
        if self.k is None:
            return None
        z = embedding_of(out)
        return self._success(z, self._against_gallery(z.detach()), rows)

    def loss_and_success(self, out: Outputs, rows: Tree, member: Embedder) -> tuple[Tensor, Tensor | None]:
        """Both from one product with the gallery."""
        z = embedding_of(out)
        gallery = self._against_gallery(z.detach())
        loss = self._loss(z, gallery, rows)
        with torch.no_grad():
            return loss, None if self.k is None else self._success(z, gallery, rows)

    def _loss(self, z: Tensor, gallery: Tensor, rows: Tree) -> Tensor:
        own = rows.get("own")
        loss = -self._mean_hinge(gallery, z, rows["candidates"], own, raising=self.raising) / self.size
        if "preserve" in rows:
            loss = loss - self.xi * self._mean_hinge(gallery, z, rows["preserve"], own, raising=True) / self.size
        return loss

    def _success(self, z: Tensor, gallery: Tensor, rows: Tree) -> Tensor:
        assert self.k is not None
        if "own" in rows:
            gallery = gallery.scatter(1, rows["own"].unsqueeze(1), -torch.inf)
        within = self._ranks(z, rows["candidates"], gallery) < self.k
        success = within.all(1) if self.raising else (~within).all(1)
        if "preserve" in rows:
            success = success & (self._ranks(z, rows["preserve"], gallery).double().mean(1) < self.k)
        return success

    def _ranks(self, z: Tensor, items: Tensor, gallery: Tensor) -> Tensor:
        """(n, W) ranks of (n, W, D) items. An item usually has its copy in the gallery, which is no closer than itself."""
        own = self._similarity.pair(z.double().unsqueeze(1), items.double())
        return torch.stack([self._closer.count(z, gallery, column) for column in own.unbind(1)], dim=1)

    def _mean_hinge(self, gallery: Tensor, z: Tensor, items: Tensor, left_out: Tensor | None, *, raising: bool) -> Tensor:
        """Mean over items and sum over the gallery of [s_c − s_x]₊ (raising) or [s_x − s_c]₊, (n,).

        Which pairs are active is piecewise constant, so it is counted without gradient: Σ of active pairs is then linear in
        the n·M + n·m similarities, and neither an (n, m, M) nor an (n, M) tensor enters autograd.
        """
        own = self._similarity.pair(z.unsqueeze(1), items)
        with torch.no_grad():
            per_gallery, per_item = _active(gallery, own.detach(), left_out, raising=raising)
        over_gallery = self._against_gallery.weighted(z, gallery, per_gallery)
        hinge = (over_gallery - (own * per_item).sum(1)) / own.shape[1]
        return hinge if raising else -hinge


def _active(gallery: Tensor, own: Tensor, left_out: Tensor | None, *, raising: bool) -> tuple[Tensor, Tensor]:
    """For (n, M) and (n, m) similarities: of how many items' hinges each gallery item is part, and the other way round."""
    (n, size), width = gallery.shape, own.shape[1]
    if left_out is not None:
        gallery = gallery.scatter(1, left_out.unsqueeze(1), -torch.inf if raising else torch.inf)
    # A hinge that lowers is active where the gallery item is not at least as close as the candidate.
    limits = own if raising else torch.nextafter(own, own.new_tensor(-torch.inf))
    per_gallery, per_item = gallery.new_empty(n, size), torch.empty_like(own)
    block = _ROWS if gallery.device.type == "cpu" else n
    for first in range(0, n, block):
        here = slice(first, first + block)
        per_gallery[here], per_item[here] = _above_each(gallery[here], limits[here])
    return (per_gallery, per_item) if raising else (width - per_gallery, size - per_item)


def _above_each(gallery: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """For (n, M) similarities and (n, m) limits: above how many limits each lies, (n, M), and how many each lie above."""
    size = gallery.shape[1]
    per_limit = torch.empty_like(limits)
    # One byte for each gallery item, and the same two masks over and over; what a byte cannot hold is passed on.
    total, held, mask = gallery.new_zeros(gallery.shape), None, None
    for column in range(limits.shape[1]):
        mask = above(gallery, limits[:, column], out=mask)
        per_limit[:, column] = count(mask)
        held = mask.view(torch.uint8).clone() if held is None else held.add_(mask.view(torch.uint8))
        if column % 255 == 254:
            total += held[:, :size]
            held = None
    return total if held is None else total.add_(held[:, :size]), per_limit


def _example() -> QueryRank:
    pictures = torch.linspace(0, 1, 12 * 64).view(12, 1, 8, 8).flip(0)
    return QueryRank(
        candidates=pictures[:6].unsqueeze(1) ** 2, gallery=pictures.sqrt(), direction="raise",
        preserve=torch.stack([pictures[1:7], pictures[2:8]], dim=1), k=3,
    )  # fmt: skip


OBJECTIVES.register(
    "query-rank",
    example=_example,
    paper="Zhou et al. 2020, Adversarial Ranking Attack and Defense, sections 3.2 and 3.3",
    access="gradient",
    differs="means instead of sums, as in the authors' code: ξ weighs mean hinges of C and C_SP, whatever m and G are",
)(QueryRank)
