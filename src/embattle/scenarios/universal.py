"""I-CA± and I-QA±: one perturbation, learnt from some pictures, for any picture.

What is tried is one perturbation and not one picture: a random target is drawn, a perturbation is learnt from random
pictures of the gallery (seen), and it is judged on others (unseen). Lowering attacks are judged on pictures that stand on
the target's first page, because nobody needs to lower the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeGuard

import torch
from torch import Tensor

from embattle import rng
from embattle.scenarios.candidate import LowerCandidate, RaiseCandidate
from embattle.scenarios.query import LowerByQuery, RaiseByQuery
from embattle.scenarios.scenario import SCENARIOS, Scenario, Setting
from embattle.scenarios.subject import Subject

_PAPER = "Zhou et al. 2020, section 5.2"
# A perturbation has succeeded when it carries this share of the unseen pictures.
CARRIES = 0.5
_LIMIT_ADVICE = (
    "Subtract what many uploads of one account have in common, and look at it: a shared pattern is a sign of this attack.",
    "Recompress or blur lightly before embedding, and measure again: a pattern that must fit all pictures is fragile.",
)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one perturbation is learnt from and judged on; gallery positions.

    Args:
        target: the query or candidate.
        learnt: (n,) pictures it is learnt from.
        seen: those of them that it is judged on beside the unseen ones; may be empty.
        unseen: (m,) other pictures that it is judged on; may be empty.
    """

    target: int
    learnt: Tensor
    seen: Tensor
    unseen: Tensor


class UniversalScenario(Scenario, Protocol):
    """A scenario whose aims, objective and measure are those of single pictures that carry one perturbation."""

    def aims_at(self, rows: Tensor, target: int) -> Mapping[str, Tensor]:
        """The given target for every row."""
        ...

    def draw(self, subject: Subject, seed: int, number: int, count: int, *, nearest: float | None = None) -> Draw:
        """The target with this number, what a perturbation is learnt from, and what it is judged on."""
        ...


def is_universal(scenario: Scenario) -> TypeGuard[UniversalScenario]:
    """Whether a scenario tries one perturbation for many pictures."""
    return isinstance(scenario, Universal)


class Universal:
    """Shared by all four; comes before the scenario whose objective and measure of single pictures it takes."""

    family: ClassVar[str]
    aim: ClassVar[str]
    outcome: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]

    @property
    def name(self) -> str:
        """As in gates and figures."""
        return self.family

    @property
    def _raises(self) -> bool:
        return self.family.endswith("+")

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`. Its metrics are those of a perturbation, each counted once."""
        rank = {"unit": "%", "higher_is_better": self._raises}
        direction = "raise" if self._raises else "lower"
        return {
            "title": self.title, "question": self.question, "direction": direction, "metric": "rank", "shared": True,
            "metrics": {
                "rank": {**rank, "title": "mean rank over unseen pictures, a perturbation counting once"},
                "seen_rank": {**rank, "title": "the same over pictures that the perturbation was learnt from"},
                "carried": {
                    "unit": "share", "higher_is_better": False, "title": "unseen pictures that the perturbation carries"
                },
            },
            "criterion": f"{self.outcome} the first {subject.page:,} of the {len(subject.images) - 1:,} items that the "
            f"query finds",
            "advice": list(_LIMIT_ADVICE),
        }  # fmt: skip

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """See `Scenario.targets`."""
        return 1, gallery - 1

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """The first random target, the same for every row."""
        return self.aims_at(rows, self.drawn(subject, seed, 0))

    def aims_at(self, rows: Tensor, target: int) -> Mapping[str, Tensor]:
        """The given target for every row."""
        return {self.aim: torch.full((len(rows), 1), target)}

    def drawn(self, subject: Subject, seed: int, number: int) -> int:
        """Gallery position of the target with this number, counting from 0; all numbers have different ones."""
        order = rng.generator(seed, f"{self.family} targets").permutation(len(subject.images))
        return int(order[number])

    def draw(self, subject: Subject, seed: int, number: int, count: int, *, nearest: float | None = None) -> Draw:
        """A target, as many pictures to learn from, and others to judge on.

        Args:
            subject: the system.
            seed: of the draws.
            number: of the target.
            count: pictures to learn from, and to judge raising attacks on; at most half of the gallery each.
            nearest: judge lowering attacks on this share of the pictures learnt from, and of as many others, those nearest
                to the target, at least one; None: on what stands on its first page.
        """
        target = self.drawn(subject, seed, number)
        order = rng.generator(seed, f"{self.family} pictures", number).permutation(len(subject.images))
        others = torch.from_numpy(order[order != target])
        count = learnt_from(len(subject.images), count)
        learnt, rest = others[:count].sort().values, others[count:]
        unseen = rest[:count].sort().values
        if self._raises:
            return Draw(target=target, learnt=learnt, seen=learnt, unseen=unseen)
        if nearest is not None:
            seen, unseen = (_nearest(subject, target, rows, nearest) for rows in (learnt, unseen))
            return Draw(target=target, learnt=learnt, seen=seen, unseen=unseen)
        (page,) = subject.neighbours(torch.tensor([target]), subject.page)
        return Draw(
            target=target, learnt=learnt, seen=learnt[torch.isin(learnt, page)], unseen=page[torch.isin(page, rest)]
        )


def _nearest(subject: Subject, target: int, rows: Tensor, share: float) -> Tensor:
    similarities = subject.similarity.cross(subject.z[target].unsqueeze(0), subject.z[rows])[0]
    order = similarities.argsort(descending=True, stable=True)
    return rows[order[: max(1, int(share * len(rows)))]]


def learnt_from(gallery: int, count: int) -> int:
    """How many pictures a perturbation is learnt from: the wanted number, or half of the others where that is less.

    >>> learnt_from(10_000, 500), learnt_from(41, 500)
    (500, 20)
    """
    return min(count, (gallery - 1) // 2)


@SCENARIOS.register("i-ca+", paper=f"{_PAPER} (I-CA+)", access="gradient", differs="learnt from fewer pictures by default")
@dataclass(frozen=True)
class RaiseAnyCandidate(Universal, RaiseCandidate):
    """One perturbation brings any item to the first page of a query."""

    width: int = field(default=1, init=False)
    family, aim, outcome = "i-ca+", "queries", "at least half of the unseen pictures enter"
    title = "Push any item up with one perturbation"
    question = "Can one perturbation bring items it has never seen to the first page of a query?"


@SCENARIOS.register("i-ca-", paper=f"{_PAPER} (I-CA−)", access="gradient", differs="learnt from fewer pictures by default")
@dataclass(frozen=True)
class LowerAnyCandidate(Universal, LowerCandidate):
    """One perturbation takes the items of a query's first page away from it."""

    width: int = field(default=1, init=False)
    family, aim, outcome = "i-ca-", "queries", "at least half of the unseen pictures leave"
    title = "Hide a query's items with one perturbation"
    question = "Can one perturbation take items it has never seen off the first page of a query?"


@SCENARIOS.register("i-qa+", paper=f"{_PAPER} (I-QA+)", access="gradient", differs="learnt from fewer pictures by default")
@dataclass(frozen=True)
class RaiseByAnyQuery(Universal, RaiseByQuery):
    """One perturbation makes any query find a chosen item."""

    width: int = field(default=1, init=False)
    family, aim, outcome = "i-qa+", "candidates", "for at least half of the unseen queries the chosen item enters"
    title = "Promote an item in every query with one perturbation"
    question = "Can one perturbation of queries it has never seen bring a chosen item to their first page?"


@SCENARIOS.register("i-qa-", paper=f"{_PAPER} (I-QA−)", access="gradient", differs="learnt from fewer pictures by default")
@dataclass(frozen=True)
class LowerByAnyQuery(Universal, LowerByQuery):
    """One perturbation makes the queries around a chosen item lose it."""

    width: int = field(default=1, init=False)
    family, aim, outcome = "i-qa-", "candidates", "for at least half of the unseen queries the chosen item leaves"
    title = "Suppress an item in the queries around it with one perturbation"
    question = "Can one perturbation of queries it has never seen take a chosen item off their first page?"
