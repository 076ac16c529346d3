"""HM with intra-class structure: an attacked anchor must stay nearer to itself than another picture of its class is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import embedded, triplet_of
from embattle.defenses.training.example import example
from embattle.defenses.training.hm import HardnessManipulation
from embattle.embedders import Embedder
from embattle.training import Batch, Triplet, Triplets, soft_hard

# Lambda of the published code and of the paper's main results.
_WEIGHT = 0.5


@DEFENSES.register(
    "hm-ics",
    example=lambda: example("hm-ics"),
    paper="Zhou and Patel, Enhancing Adversarial Robustness for Deep Metric Learning (CVPR 2022), sections 3.1 to 3.3",
    access="gradient",
    differs="the paper's distance is that of the loss triplet-sphere",
)
class StructuredHardness(HardnessManipulation):
    """HM on soft-hard triplets, with a loss that keeps attacked anchors nearer to themselves than their positives are.

    It is the paper's own choice among its combinations, HM[S, g_LGA] & ICS. Needs the triplet loss.
    """

    name = "hm-ics"

    def _mined(self, drawn: Triplets, distance: Tensor, batch: Batch, triplet: Triplet) -> Triplets:
        assert batch.labels is not None
        return soft_hard(drawn, distance, batch.labels, batch.rng("soft-hard"))

    def _outer(self, embedder: Embedder, batch: Batch, drawn: Triplets, attacked: Sequence[Tensor]) -> Tensor:
        anchors, positives = embedded(embedder, batch.x[torch.cat([drawn.anchors, drawn.positives])]).chunk(2)
        structure = _WEIGHT * replace(triplet_of(self), margin=0.0).of(anchors, attacked[0], positives)
        # Its gradient without its value: the next batch's hardness is set by the triplet loss alone.
        return super()._outer(embedder, batch, drawn, attacked) + structure - structure.detach()
