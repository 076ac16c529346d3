"""Max shift: a picture moves away from itself, so that it is not found or is taken for something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from embattle.attacks.objectives import Shift
from embattle.metrics import max_shift, normalised_rank, ranks
from embattle.scenarios.advice import HARDEN, SEVERAL_NEIGHBOURS
from embattle.scenarios.classes import recalled
from embattle.scenarios.lists import own_list
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Setting
from embattle.scenarios.subject import Subject
from embattle.similarity import Cosine, euclidean_distance

_DISTANCE = {"unit": "distance", "higher_is_better": False, "title": "mean distance from the clean embedding"}
_ON_SPHERE = {**_DISTANCE, "title": "mean Euclidean distance from the clean embedding, both brought to length 1"}


@dataclass(frozen=True)
class _Shifted:
    """Shared by both: the same attack, read in two ways."""

    needs_classes: ClassVar[int] = 0

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """None; see `Scenario.targets`."""
        return 0, gallery

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """No targets: away from the clean embedding in any direction."""
        return {}

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> Shift:
        """Distance from the clean embedding."""
        return Shift(anchor=subject.z[rows])

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The picture's own list, its clean copy framed."""
        return own_list(subject, row, z)


@SCENARIOS.register("shift", paper="Zhou et al. 2020, section 3.4 (max shift)", access="gradient")
class Unfindable(_Shifted):
    """A picture no longer finds its own original."""

    name = "shift"

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        title = "mean rank of the clean original in the list of the changed picture"
        return {
            "title": "Slip past copy detection", "direction": "lower", "metric": "self_rank",
            "question": "Can a copy be changed so that searching with it no longer finds its original?",
            "metrics": {"self_rank": {"unit": "%", "higher_is_better": False, "title": title}, "distance": _DISTANCE},
            "criterion": f"the original leaves the first {subject.page:,} of {len(subject.images):,} items",
            "advice": [
                "Compare uploads with a second signature that is not a neural embedding (perceptual hash).",
                HARDEN,
            ],
        }  # fmt: skip

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Rank of the clean original, which always stays in this list, and the distance from it."""
        found = ranks(z, subject.z[rows].unsqueeze(1), subject.z, subject.similarity)[:, 0]
        metrics = {
            "self_rank": normalised_rank(found, len(subject.images)),
            "distance": max_shift(subject.z[rows], z, subject.similarity),
        }
        return Measured(metrics=metrics, goal=found >= subject.page)


@SCENARIOS.register("class", paper="Zhou et al. 2020, section 3.4; recall under max shift", access="gradient")
class Misread(_Shifted):
    """A picture's nearest neighbour is of another class."""

    name = "class"
    needs_classes = 1

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        recall = {"unit": "%", "higher_is_better": True, "title": "pictures whose nearest neighbour has their class"}
        return {
            "title": "Be taken for something else", "direction": "lower", "metric": "recall@1",
            "question": "Can a picture be changed so that its nearest neighbour is of another class?",
            "metrics": {"recall@1": recall, "distance": _DISTANCE},
            "criterion": "the nearest neighbour, the picture itself left out, has another class",
            "advice": [
                SEVERAL_NEIGHBOURS,
                HARDEN,
            ],
        }  # fmt: skip

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Class of the nearest other picture, and the distance from the clean embedding."""
        right = recalled(subject, rows, z)
        metrics = {"recall@1": right, "distance": max_shift(subject.z[rows], z, subject.similarity)}
        return Measured(metrics=metrics, goal=right != 100)


@SCENARIOS.register("es", paper="Zhou et al. 2021, Adversarial Attack and Defense in Deep Ranking (ES)", access="gradient")
class ShiftedOnSphere(Misread):
    """A picture's nearest neighbour is of another class; its shift is told on the unit sphere, as ERS takes it."""

    name = "es"

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        told = super().describe(subject)
        return {**told, "metrics": {"recall@1": told["metrics"]["recall@1"], "max_shift": _ON_SPHERE}}

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Class of the nearest other picture, and the distance between directions: in [0, 2], whatever the model's own."""
        right, cosine = recalled(subject, rows, z), Cosine()
        shift = euclidean_distance(cosine, cosine.pair(subject.z[rows].double(), z.double()))
        return Measured(metrics={"recall@1": right, "max_shift": shift}, goal=right != 100)
