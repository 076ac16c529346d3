"""Ranked lists as a report shows them: a few best items, the attacked one framed, before and after."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from embattle.scenarios.scenario import Exhibit, Shown
from embattle.scenarios.subject import Subject

LENGTH = 8


def displayed(
    subject: Subject, query: Tensor, *, hidden: Collection[int], framed: int, replacement: Tensor | None = None
) -> tuple[list[Shown], int]:
    """The first items of a query's list, and the rank (from 1) of the framed one.

    Args:
        subject: the system.
        query: (D,) embedding.
        hidden: gallery positions that are not shown and not counted (the query's own copy).
        framed: the gallery position whose rank matters.
        replacement: (D,) embedding that takes the framed item's place: the adversarial picture.
    """
    similarities = subject.similarity.cross(query.unsqueeze(0), subject.z)[0].clone()
    if replacement is not None:
        similarities[framed] = subject.similarity.pair(query, replacement)
    similarities[list(hidden)] = -torch.inf
    order = similarities.argsort(descending=True, stable=True)
    rank = int((order == framed).nonzero()[0]) + 1
    length = min(LENGTH, len(order) - len(hidden))
    # An item far down is shown at the end with its true rank, so that both lists tell where it stands.
    positions = list(range(length)) if rank <= length else [*range(length - 1), rank - 1]
    shown = [
        Shown(
            position=None if replacement is not None and place == framed else place,
            similarity=float(similarities[place]), rank=i + 1, framed=place == framed,
        )
        for i, place in ((i, int(order[i])) for i in positions)
    ]  # fmt: skip
    return shown, rank


def own_list(subject: Subject, row: int, z: Tensor) -> Exhibit:
    """What a picture finds before and after it is changed, its clean copy framed; `z` is (1, D)."""
    before, rank_before = displayed(subject, subject.z[row], hidden=(), framed=row)
    after, rank_after = displayed(subject, z[0], hidden=(), framed=row)
    return Exhibit(
        title=f"Searching with picture {subject.images.ids[row]}",
        before_title="List of the clean picture", after_title="List of the adversarial picture", before=before,
        after=after, anchor_label="", anchor=None, rank_before=rank_before, rank_after=rank_after,
    )  # fmt: skip


def chosen_in_own_list(subject: Subject, row: int, chosen: int, z: Tensor) -> Exhibit:
    """Where a chosen item stands in the list of a query before and after it is changed; `z` is (1, D)."""
    before, rank_before = displayed(subject, subject.z[row], hidden={row}, framed=chosen)
    after, rank_after = displayed(subject, z[0], hidden={row}, framed=chosen)
    return Exhibit(
        title=f"Item {subject.images.ids[chosen]} in the list of query {subject.images.ids[row]}",
        before_title="List of the clean query", after_title="List of the adversarial query", before=before,
        after=after, anchor_label="chosen item", anchor=chosen, rank_before=rank_before, rank_after=rank_after,
    )  # fmt: skip
