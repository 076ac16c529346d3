"""LTM and GTM: a picture's nearest neighbour becomes an item of another class, with the gallery's labels at hand.

Both exist twice. The public implementation with which the published robustness scores were made picks another item than it
means to (GTM) and does not leave the picture itself out (LTM). What such attacks leave standing is no measure of a system,
also where they happen to do more harm. The corrected attacks have the plain names; the others are kept for comparison with
published tables and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from embattle.attacks.objectives import Match, Misrank
from embattle.scenarios.advice import HARDEN, SEVERAL_NEIGHBOURS
from embattle.scenarios.classes import compressed_place, labels_of, nearest_of_another_class, recalled
from embattle.scenarios.lists import chosen_in_own_list, own_list
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Setting
from embattle.scenarios.subject import Subject

_WANG = "Wang et al. 2020, Deep Mis-Ranking, Eq. 1 (LTM)"
_ZHOU = "Zhou et al. 2021, Adversarial Attack and Defense in Deep Ranking (GTM)"


@dataclass(frozen=True)
class _Misranked:
    """Shared by all four: they differ in what the attack is told to do."""

    needs_classes: ClassVar[int] = 2
    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        recall = {"unit": "%", "higher_is_better": True, "title": "pictures whose nearest neighbour has their class"}
        return {
            "title": self.title, "direction": "lower", "metric": "recall@1", "question": self.question,
            "metrics": {"recall@1": recall},
            "criterion": "the nearest neighbour, the picture itself left out, has another class",
            "advice": [
                SEVERAL_NEIGHBOURS,
                HARDEN,
            ],
        }  # fmt: skip

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Class of the nearest other picture."""
        right = recalled(subject, rows, z)
        return Measured(metrics={"recall@1": right}, goal=right != 100)


class _FromOwnClass(_Misranked):
    """Every item of another class before those of the picture's own."""

    without_itself: ClassVar[bool]

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """None; see `Scenario.targets`."""
        return 0, gallery

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """No targets: the labels say which items count."""
        return {}

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> Misrank:
        """Farthest of another class against nearest of the own."""
        labels = labels_of(subject, self.needs_classes)
        own = rows if self.without_itself else None
        return Misrank(gallery=subject.z, labels=labels, classes=labels[rows], own=own)

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The picture's own list, its clean copy framed."""
        return own_list(subject, row, z)


class _TowardsOne(_Misranked):
    """One item that the picture is to resemble."""

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """Nothing is drawn: the nearest is taken."""
        return 0, gallery

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> Match:
        """Similarity to the item."""
        return Match(target=subject.z[aims["target"]])

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The picture's list before and after, the item framed."""
        return chosen_in_own_list(subject, row, int(aims["target"][0]), z)


@SCENARIOS.register("ltm", paper=_WANG, access="gradient")
class LearningToMisrank(_FromOwnClass):
    """A picture is pushed off its own class and towards what is farthest from it."""

    name, without_itself = "ltm", True
    title = "Be ranked against the own class"
    question = "Can a picture be changed so that items of all other classes come before those of its own?"


@SCENARIOS.register(
    "ltm-legacy", paper=_WANG, access="gradient",
    differs="as in the public implementation: the picture's own clean copy counts as the nearest item of its class",
)  # fmt: skip
class LearningToMisrankAsPublished(_FromOwnClass):
    """LTM as published figures were made: the picture is pushed off its own clean copy, not off its class."""

    name, without_itself = "ltm-legacy", False
    title = "Be ranked against the own class (as published)"
    question = (
        "Can the published attack bring other classes before a picture's own, though its mask leaves the picture itself in?"
    )


@SCENARIOS.register(
    "gtm", paper=_ZHOU, access="gradient", differs="the nearest item that does not have the picture's class"
)
class GreedyMisrank(_TowardsOne):
    """A picture is taken for the most similar item of another class."""

    name = "gtm"
    title = "Be taken for the most similar item of another class"
    question = "Can a picture be changed so that the closest item of another class comes before its own class?"

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """The nearest item of another class than the picture's; a place in the whole gallery."""
        return {"target": nearest_of_another_class(subject, rows)}


@SCENARIOS.register(
    "gtm-legacy", paper=_ZHOU, access="gradient",
    differs="as in the public implementation: a place in a row of some items is used as a place in the whole gallery",
)  # fmt: skip
class GreedyMisrankAsPublished(_TowardsOne):
    """GTM as published figures were made: towards an item that an index of another list happens to name."""

    name = "gtm-legacy"
    title = "Be taken for the most similar item of another class (as published)"
    question = "Can the published attack bring another class before a picture's own, though it aims at a wrong item?"

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """The item at a place counted in a compressed row."""
        return {"target": compressed_place(subject, rows)}
