"""QA± and SP-QA±: somebody who controls the query picture moves chosen items in its list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from embattle.attacks.objectives import QueryRank
from embattle.metrics import normalised_rank, ranks
from embattle.scenarios.advice import HARDEN
from embattle.scenarios.lists import chosen_in_own_list
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Setting
from embattle.scenarios.subject import Subject

_RAISE_ADVICE = (
    "Smooth the query before embedding it (recompression, light blur) and compare the two lists; a large change is a flag.",
    HARDEN,
)
_LOWER_ADVICE = (
    "Search with several light variants of the query and merge their lists.",
    HARDEN,
)


@dataclass(frozen=True)
class _Query:
    """Shared by all four; `width` is the paper's m, the number of candidates."""

    width: int = 1

    needs_classes: ClassVar[int] = 0
    family: ClassVar[str]
    direction: ClassVar[Literal["raise", "lower"]]
    preserving: ClassVar[bool]
    title: ClassVar[str]
    question: ClassVar[str]

    @property
    def name(self) -> str:
        """As in gates and figures."""
        return f"{self.family}.m{self.width}"

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        raising = self.direction == "raise"
        metrics = {"rank": {"unit": "%", "higher_is_better": raising, "title": "mean rank of the chosen items"}}
        if self.preserving:
            title = f"mean rank of the {subject.preserve} neighbours the attack keeps, so that the list looks natural"
            metrics["kept_rank"] = {"unit": "%", "higher_is_better": False, "title": title}
        kept = f", and its {subject.preserve} nearest neighbours stay there on average" if self.preserving else ""
        what = "the chosen item" if self.width == 1 else f"each of {self.width} chosen items"
        return {
            "title": self.title, "question": self.question, "direction": self.direction, "metric": "rank",
            "metrics": metrics,
            "criterion": f"{what} {'enters' if raising else 'leaves'} the first {subject.page:,} of the "
            f"{len(subject.images) - 1:,} items that the query finds{kept}",
            "advice": list(_RAISE_ADVICE if raising else _LOWER_ADVICE),
        }  # fmt: skip

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """See `Scenario.targets`."""
        return self.width, gallery - 1 if self.direction == "raise" else page

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """Candidates uniform over the gallery (raise) or among the nearest (lower), and the neighbours to keep."""
        draw = subject.random_others if self.direction == "raise" else subject.random_neighbours
        # Plain and preserving attacks on one picture share their candidates, so that their figures are comparable.
        stream = f"qa{self.family[-1]}.m{self.width}"
        candidates = draw(rows, self.width, seed=seed, stream=stream)
        near = subject.neighbours(rows, subject.preserve + self.width)
        # Each candidate takes at most one place among the nearest, so this many are left for every row alike.
        count = max(min(subject.preserve, near.shape[1] - self.width), 0)
        kept = [place[~torch.isin(place, chosen)][:count] for place, chosen in zip(near, candidates, strict=True)]
        return {"candidates": candidates, "kept": torch.stack(kept)}

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> QueryRank:
        """The rank objective over the whole gallery."""
        return QueryRank(
            candidates=subject.z[aims["candidates"]], gallery=subject.z, direction=self.direction,
            preserve=subject.z[aims["kept"]] if self.preserving and aims["kept"].shape[1] else None,
            xi=subject.xi, own=subject.own(rows), k=subject.page,
        )  # fmt: skip

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Mean normalised rank of the candidates, and of the kept neighbours; both matter for the goal."""
        own = subject.own(rows)
        found = ranks(z, subject.z[aims["candidates"]], subject.z, subject.similarity, exclude=own)
        metrics = {"rank": normalised_rank(found, subject.ranked).mean(1)}
        if self.preserving and aims["kept"].shape[1]:
            kept = ranks(z, subject.z[aims["kept"]], subject.z, subject.similarity, exclude=own)
            metrics["kept_rank"] = normalised_rank(kept, subject.ranked).mean(1)
        return Measured(metrics=metrics, goal=self._goal(subject, rows, aims, z))

    def _goal(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """Read off the list a visitor sees, in which the query's own clean copy is not."""
        seen = ranks(z, subject.z[aims["candidates"]], subject.z, subject.similarity, exclude=rows)
        inside = seen < subject.page
        goal = inside.all(1) if self.direction == "raise" else (~inside).all(1)
        if self.preserving and aims["kept"].shape[1]:
            kept = ranks(z, subject.z[aims["kept"]], subject.z, subject.similarity, exclude=rows)
            goal = goal & (kept.double().mean(1) < subject.page)
        return goal

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The query's list before and after, the first candidate framed."""
        return chosen_in_own_list(subject, row, int(aims["candidates"][0, 0]), z)


@SCENARIOS.register("sp-qa+", paper="Zhou et al. 2020, section 3.3 (SP-QA+)", access="gradient")
class RaiseByQueryPreserving(_Query):
    """A query brings chosen items to the front, while its natural neighbours stay where they were."""

    family, direction, preserving = "sp-qa+", "raise", True
    title = "Promote an item through the query"
    question = "Can a changed query bring an unrelated item to its first page while the list still looks natural?"


@SCENARIOS.register("sp-qa-", paper="Zhou et al. 2020, section 3.3 (SP-QA−)", access="gradient")
class LowerByQueryPreserving(_Query):
    """A query loses chosen items, while its other neighbours stay where they were."""

    family, direction, preserving = "sp-qa-", "lower", True
    title = "Suppress an item through the query"
    question = "Can a changed query lose a matching item while the list still looks natural?"


@SCENARIOS.register("qa+", paper="Zhou et al. 2020, section 3.2 (QA+)", access="gradient")
class RaiseByQuery(_Query):
    """A query brings chosen items to the front, whatever happens to the rest of its list."""

    family, direction, preserving = "qa+", "raise", False
    title = "Promote an item through the query, whatever else it finds"
    question = "Can a changed query bring an unrelated item to its first page?"


@SCENARIOS.register("qa-", paper="Zhou et al. 2020, section 3.2 (QA−)", access="gradient")
class LowerByQuery(_Query):
    """A query loses chosen items, whatever happens to the rest of its list."""

    family, direction, preserving = "qa-", "lower", False
    title = "Suppress an item through the query, whatever else it finds"
    question = "Can a changed query lose a matching item?"
