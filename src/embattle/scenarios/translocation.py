"""GTT: the item that a picture finds first is pushed off the first places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from embattle.attacks.objectives import QueryRank
from embattle.metrics import ranks
from embattle.scenarios.advice import HARDEN
from embattle.scenarios.lists import chosen_in_own_list
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Setting
from embattle.scenarios.subject import Subject

# The published figure is "retain@4".
_PLACES = 4


@SCENARIOS.register(
    "gtt", paper="Zhou et al. 2021, Adversarial Attack and Defense in Deep Ranking (GTT)", access="gradient"
)
@dataclass(frozen=True)
class GreedyTranslocation:
    """A picture no longer finds among the first four what it used to find first."""

    name: ClassVar[str] = "gtt"
    needs_classes: ClassVar[int] = 0

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        title = f"pictures that still find their clean first item among the first {_PLACES}"
        return {
            "title": "Push the best match off the first places", "direction": "lower", "metric": f"retain@{_PLACES}",
            "question": "Can a picture be changed so that the item it finds first is no longer among the first four?",
            "metrics": {f"retain@{_PLACES}": {"unit": "%", "higher_is_better": True, "title": title}},
            "criterion": f"the item that the clean picture finds first leaves the first {_PLACES} of the "
            f"{len(subject.images) - 1:,} items",
            "advice": [
                "Search with several light variants of the query and merge their lists.",
                HARDEN,
            ],
        }  # fmt: skip

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """Nothing is drawn: the nearest is taken."""
        return 0, gallery

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """The item that each clean picture finds first, itself left out."""
        return {"target": subject.neighbours(rows, 1)[:, 0]}

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> QueryRank:
        """Its rank among the whole gallery, to be lowered."""
        return QueryRank(
            candidates=subject.z[aims["target"]], gallery=subject.z, direction="lower", own=subject.own(rows)
        )  # fmt: skip

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Whether fewer than four others are closer than it; the picture's own clean copy is not in the list.

        Undefined in a gallery of five or fewer, where four places are enough for all others.
        """
        first = subject.z[aims["target"]].unsqueeze(1)
        if len(subject.images) - 1 <= _PLACES:
            # No item can leave places that there are enough of for all: undefined, not withstood.
            return Measured(
                metrics={f"retain@{_PLACES}": torch.full((len(rows),), math.nan, dtype=torch.float64)},
                goal=torch.ones(len(rows), dtype=torch.bool),
            )
        kept = ranks(z, first, subject.z, subject.similarity, exclude=rows)[:, 0] < _PLACES
        return Measured(metrics={f"retain@{_PLACES}": kept.double() * 100}, goal=~kept)

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The picture's list before and after, the item framed."""
        return chosen_in_own_list(subject, row, int(aims["target"][0]), z)
