"""HM, hardness manipulation: triplets are attacked until they are as hard as the model can bear by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import Defense, embedded, triplet_of
from embattle.defenses.training.example import example
from embattle.defenses.training.tuples import TupleObjective, apart, stacked, tall_embedder
from embattle.embedders import Embedder
from embattle.training import Batch, Triplet, Triplets, in_batch_triplets, semi_hard


@dataclass(frozen=True, kw_only=True, eq=False)
class Harden(TupleObjective):
    """The triplet's hardness d(a, p) - d(a, n) up to a given one, and no further.

    Args:
        triplet: the loss in whose distance it is measured.
        hardness: the one that is aimed at.
    """

    triplet: Triplet
    hardness: float

    count = 3

    def gain(self, parts: Sequence[Tensor], member: Embedder) -> Tensor:
        """Minus the squared hardness that is lacking."""
        return -((self.hardness - self.triplet.hardness(*parts)).clamp_min(0) ** 2)


def gradual_hardness(previous_loss: float | None, margin: float) -> float:
    """The hardness aimed at: -margin while the loss is high, rising to 0 as it falls (linear gradual adversary).

    >>> gradual_hardness(None, 0.2), gradual_hardness(0.05, 0.2)
    (-0.2, -0.05)
    """
    return -min(max(margin if previous_loss is None else previous_loss, 0.0), margin)


@DEFENSES.register(
    "hm",
    example=lambda: example("hm"),
    paper="Zhou and Patel, Enhancing Adversarial Robustness for Deep Metric Learning (CVPR 2022), sections 3.1 and 3.2",
    access="gradient",
    differs="without the intra-class structure term of hm-ics; the paper's distance is that of the loss triplet-sphere",
)
class HardnessManipulation(Defense):
    """Trains on triplets attacked up to a hardness which rises as the loss falls, so that training does not collapse.

    Of the paper's combinations it is semi-hard triplets with the linear gradual adversary. Needs the triplet loss.
    """

    name = "hm"
    attacks_triplets = True

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """The triplet loss of triplets attacked as a whole."""
        triplet = triplet_of(self)
        drawn = self._drawn(embedder, batch, triplet)
        aim = Harden(tuples=len(drawn), triplet=triplet, hardness=self._hardness(batch, triplet.margin))
        attacked = attacked_triplets(self, embedder, batch, drawn, aim)
        return self._outer(embedder, batch, drawn, embedded(embedder, attacked).chunk(3))

    def _hardness(self, batch: Batch, margin: float) -> float:
        """What is aimed at in this batch."""
        return gradual_hardness(batch.previous_loss, margin)

    def _outer(self, embedder: Embedder, batch: Batch, drawn: Triplets, attacked: Sequence[Tensor]) -> Tensor:
        """What is minimised, of the attacked embeddings of anchors, positives and negatives."""
        return triplet_of(self).of(*attacked)

    def _drawn(self, embedder: Embedder, batch: Batch, triplet: Triplet) -> Triplets:
        assert batch.labels is not None
        with embedder.frozen(), torch.no_grad():
            z = embedded(embedder, batch.x)
        distance = triplet.distance(embedder.similarity.cross(z, z))
        return self._mined(in_batch_triplets(batch.labels, batch.rng()), distance, batch, triplet)

    def _mined(self, drawn: Triplets, distance: Tensor, batch: Batch, triplet: Triplet) -> Triplets:
        assert batch.labels is not None
        return semi_hard(drawn, distance, batch.labels, triplet.margin, batch.rng("semi-hard"))


def attacked_triplets(
    defense: Defense, embedder: Embedder, batch: Batch, drawn: Triplets, objective: TupleObjective
) -> Tensor:
    """All anchors, then all positives, then all negatives of triplets whose three pictures were attacked together."""
    triples = stacked(batch.x, (drawn.anchors, drawn.positives, drawn.negatives))
    ids = [f"triplet {number}" for number in range(len(drawn))]
    return torch.cat(apart(defense.inner(tall_embedder(embedder, 3), triples, objective, batch, ids), 3))
