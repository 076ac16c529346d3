"""CA+ and CA−: somebody who controls an item's picture moves it in the lists of chosen queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from embattle.attacks.objectives import CandidateRank
from embattle.metrics import normalised_rank, ranks
from embattle.scenarios.advice import HARDEN
from embattle.scenarios.lists import displayed
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Setting
from embattle.scenarios.subject import Subject


@dataclass(frozen=True)
class _Candidate:
    """Shared by both directions; `width` is the paper's w, the number of queries."""

    width: int = 1

    needs_classes: ClassVar[int] = 0
    family: ClassVar[str]
    direction: ClassVar[Literal["raise", "lower"]]
    title: ClassVar[str]
    question: ClassVar[str]
    goal: ClassVar[str]
    advice: ClassVar[tuple[str, ...]]

    @property
    def name(self) -> str:
        """As in gates and figures."""
        return f"{self.family}.w{self.width}"

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        rank = {"unit": "%", "higher_is_better": self.direction == "raise", "title": "mean rank of the attacked item"}
        which = "its query" if self.width == 1 else f"each of its {self.width} queries"
        return {
            "title": self.title, "question": self.question, "direction": self.direction, "metric": "rank",
            "metrics": {"rank": rank},
            "criterion": f"{self.goal} {subject.page:,} of the {len(subject.images) - 1:,} items that {which} finds",
            "advice": list(self.advice),
        }  # fmt: skip

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """See `Scenario.targets`."""
        return self.width, gallery - 1 if self.direction == "raise" else page

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> CandidateRank:
        """The rank objective over the whole gallery."""
        return CandidateRank(
            queries=subject.z[aims["queries"]], gallery=subject.z, direction=self.direction, own=subject.own(rows),
            k=subject.page,
        )  # fmt: skip

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Mean normalised rank over the queries; the goal must hold for all of them.

        The rank counts as the paper does. The goal is about the list a visitor sees: the query's own picture is not in
        it, and the item is there once, as it is now.
        """
        queries = subject.z[aims["queries"]]
        found = ranks(queries, z, subject.z, subject.similarity, exclude=subject.own(rows))
        absent = torch.stack([aims["queries"], rows.unsqueeze(1).expand_as(aims["queries"])], dim=-1).flatten(0, 1)
        items = z.repeat_interleave(self.width, dim=0)
        seen = ranks(queries.flatten(0, 1), items, subject.z, subject.similarity, exclude=absent)
        inside = seen.view(len(rows), self.width) < subject.page
        goal = inside.all(1) if self.direction == "raise" else (~inside).all(1)
        return Measured(metrics={"rank": normalised_rank(found, subject.ranked).mean(1)}, goal=goal)

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The first query's list, with the item's picture exchanged for the adversarial one."""
        query = int(aims["queries"][0, 0])
        before, rank_before = displayed(subject, subject.z[query], hidden={query}, framed=row)
        after, rank_after = displayed(subject, subject.z[query], hidden={query}, framed=row, replacement=z[0])
        return Exhibit(
            title=f"Item {subject.images.ids[row]} in the list of query {subject.images.ids[query]}",
            before_title="List of the query before", after_title="List of the query after", before=before, after=after,
            anchor_label="query", anchor=query, rank_before=rank_before, rank_after=rank_after,
        )  # fmt: skip


@SCENARIOS.register("ca+", paper="Zhou et al. 2020, section 3.1 (CA+)", access="gradient")
class RaiseCandidate(_Candidate):
    """An item reaches the first page of queries that it has nothing to do with."""

    family = "ca+"
    direction = "raise"
    title = "Push an item up"
    question = "Can a changed item picture reach the first page of a query it has nothing to do with?"
    goal = "the item enters the first"
    advice = (
        "Do not rank by the embedding alone: check category or text of an item before it may enter a page.",
        HARDEN,
        "Look at items whose rank jumps when their picture is recompressed or slightly blurred.",
    )

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """Queries uniform over the gallery."""
        return {"queries": subject.random_others(rows, self.width, seed=seed, stream=self.name)}


@SCENARIOS.register("ca-", paper="Zhou et al. 2020, section 3.1 (CA−)", access="gradient")
class LowerCandidate(_Candidate):
    """An item vanishes from the lists of the queries that should find it."""

    family = "ca-"
    direction = "lower"
    title = "Hide an item"
    question = "Can a changed item picture vanish from the lists of the queries that should find it?"
    goal = "the item leaves the first"
    advice = (
        "Detect near-duplicates by a second, independent signature when a known item is uploaded again.",
        HARDEN,
        "Embed several light variants of a picture (crop, recompression) and index their mean.",
    )

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """Queries among the item's nearest neighbours, 1 % of the gallery or the first page."""
        return {"queries": subject.random_neighbours(rows, self.width, seed=seed, stream=self.name)}
