"""ACT, the anti-collapse triplet: positive and negative are pulled together, and the loss pulls them apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import Defense, embedded, triplet_of
from embattle.defenses.training.example import example
from embattle.defenses.training.tuples import TupleObjective, apart, stacked, tall_embedder
from embattle.embedders import Embedder
from embattle.training import Batch, in_batch_triplets


class Collapse(TupleObjective):
    """Positive and negative towards each other."""

    count = 2

    def gain(self, parts: Sequence[Tensor], member: Embedder) -> Tensor:
        """Their similarity."""
        return member.similarity.pair(parts[0], parts[1])


@DEFENSES.register(
    "act",
    example=lambda: example("act"),
    paper="Zhou et al., Adversarial Attack and Defense in Deep Ranking (TPAMI 2024), section 5.2 (anti-collapse triplet)",
    access="gradient",
)
class AntiCollapse(Defense):
    """Trains on triplets whose positive and negative were pulled together in the embedding space; the anchor stays clean.

    Needs the triplet loss.
    """

    name = "act"
    attacks_triplets = True

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """The triplet loss of clean anchors, pulled positives and pulled negatives."""
        triplet = triplet_of(self)
        assert batch.labels is not None
        drawn = in_batch_triplets(batch.labels, batch.rng())
        pairs = stacked(batch.x, (drawn.positives, drawn.negatives))
        ids = [f"triplet {number}" for number in range(len(drawn))]
        pulled = self.inner(tall_embedder(embedder, 2), pairs, Collapse(tuples=len(drawn)), batch, ids)
        z = embedded(embedder, torch.cat([batch.x[drawn.anchors], *apart(pulled, 2)]))
        return triplet.of(*z.chunk(3))
