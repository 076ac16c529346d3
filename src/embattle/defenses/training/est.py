"""EST: the plain loss on pictures whose embeddings were shifted as far as they go."""

from __future__ import annotations

from torch import Tensor

from embattle.attacks.objectives.shift import Shift
from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import Defense
from embattle.defenses.training.example import example
from embattle.defenses.training.inner import TILE
from embattle.embedders import Embedder
from embattle.training import Batch, metric_loss


@DEFENSES.register(
    "est",
    example=lambda: example("est"),
    paper="Zhou et al. 2020, Adversarial Ranking Attack and Defense, section 3.4 (embedding-shifted triplet)",
    access="gradient",
    differs="a picture is attacked once, before triplets are drawn; starts from a seeded nudge, not from rounding noise",
)
class EmbeddingShifted(Defense):
    """Trains on max-shift examples: every picture of the batch is moved as far from its own embedding as the budget lets.

    The metric-learning loss may be any; none of its tuples sees a clean picture.
    """

    name = "est"

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """The metric-learning loss of the shifted batch."""
        # In batches of the attack's own size: those that an objective embeds its targets in would be half empty.
        clean = embedder.embed(batch.x, tile=min(TILE, len(batch.x))).to(batch.x.device)
        shifted = self.inner(embedder, batch.x, Shift(anchor=clean), batch, batch.ids)
        return metric_loss(self.metric_loss, embedder, batch, shifted)
