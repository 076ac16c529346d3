"""TMA: a picture is changed so that searching with it finds what a chosen other item finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from embattle.attacks.objectives import Match
from embattle.metrics import ranks
from embattle.scenarios.advice import HARDEN
from embattle.scenarios.lists import chosen_in_own_list
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Setting
from embattle.scenarios.subject import Subject
from embattle.similarity import Cosine


@SCENARIOS.register(
    "tma", paper="Tolias et al. 2019, Targeted Mismatch Adversarial Attack, section 3 (global descriptor)",
    access="gradient", differs="a budget instead of a penalty on the distance from the carrier picture",
)  # fmt: skip
@dataclass(frozen=True)
class TargetedMismatch:
    """A picture takes the place of a chosen item: its embedding becomes that item's."""

    name: ClassVar[str] = "tma"
    needs_classes: ClassVar[int] = 0

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """For people; see `Scenario.describe`."""
        cosine = {"unit": "", "higher_is_better": False, "title": "mean cosine to the chosen item"}
        return {
            "title": "Search in another item's name", "direction": "raise", "metric": "cosine",
            "question": "Can a picture be changed so that searching with it finds what a chosen other item finds?",
            "metrics": {"cosine": cosine},
            "criterion": f"the chosen item is the nearest of the {len(subject.images) - 1:,} items that the picture finds",
            "advice": [
                "Compare what a query finds with what its smoothed copy (recompression, light blur) finds.",
                HARDEN,
            ],
        }  # fmt: skip

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """See `Scenario.targets`."""
        return 1, gallery - 1

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """One item each, uniform over the gallery."""
        return {"target": subject.random_others(rows, 1, seed=seed, stream=self.name)[:, 0]}

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> Match:
        """Similarity to the chosen item."""
        return Match(target=subject.z[aims["target"]])

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """The cosine, which ERS takes, and whether nothing but the picture's own clean copy is closer than the item."""
        target = subject.z[aims["target"]]
        before = ranks(z, target.unsqueeze(1), subject.z, subject.similarity, exclude=rows)[:, 0]
        return Measured(metrics={"cosine": Cosine().pair(z.double(), target.double())}, goal=before == 0)

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The picture's list before and after, the chosen item framed."""
        return chosen_in_own_list(subject, row, int(aims["target"][0]), z)
