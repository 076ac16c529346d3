"""Adversarial triplets: Madry's min-max training, taken to metric learning directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import Defense, embedded, triplet_of
from embattle.defenses.training.example import example
from embattle.defenses.training.hm import attacked_triplets
from embattle.defenses.training.tuples import TupleObjective
from embattle.embedders import Embedder
from embattle.training import Batch, Triplet, in_batch_triplets


@dataclass(frozen=True, kw_only=True, eq=False)
class Hardest(TupleObjective):
    """The triplet as hard as the budget lets.

    Args:
        triplet: the loss in whose distance hardness is measured.
    """

    triplet: Triplet

    count = 3

    def gain(self, parts: Sequence[Tensor], member: Embedder) -> Tensor:
        """Its hardness, beyond the hinge too."""
        return self.triplet.hardness(*parts)


@DEFENSES.register(
    "madry",
    example=lambda: example("madry"),
    paper="Madry et al. 2018, section 2.1, with the triplet loss; Zhou et al. 2020, section 3.4, which reports that it "
    "diverges",
    access="gradient",
)
class AdversarialTriplet(Defense):
    """Trains on the hardest triplets the budget allows; kept for comparison, as its training usually collapses.

    Needs the triplet loss.
    """

    name = "madry"
    attacks_triplets = True

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """The triplet loss of triplets attacked as a whole."""
        triplet = triplet_of(self)
        assert batch.labels is not None
        drawn = in_batch_triplets(batch.labels, batch.rng())
        attacked = attacked_triplets(self, embedder, batch, drawn, Hardest(tuples=len(drawn), triplet=triplet))
        return triplet.of(*embedded(embedder, attacked).chunk(3))
