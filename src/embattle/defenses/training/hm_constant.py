"""HM with a constant aim: triplets are attacked until the negative is as near as the positive, from the first batch on."""

from __future__ import annotations

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.example import example
from embattle.defenses.training.hm import HardnessManipulation
from embattle.training import Batch


@DEFENSES.register(
    "hm-constant",
    example=lambda: example("hm-constant"),
    paper="Zhou and Patel, Enhancing Adversarial Robustness for Deep Metric Learning (CVPR 2022), section 3.1",
    access="gradient",
    differs="holds the last aim of the paper's gradual adversary; the paper's distance is that of the loss triplet-sphere",
)
class ConstantHardness(HardnessManipulation):
    """HM that aims at hardness 0 from the first batch on.

    Its gradual form comes there only as the loss reaches 0. Needs the triplet loss.
    """

    name = "hm-constant"

    def _hardness(self, batch: Batch, margin: float) -> float:
        return 0.0
