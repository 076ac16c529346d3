"""The triplet loss with random triplets drawn inside the batch."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator
from torch import Tensor

from embattle.similarity import Cosine, Similarity
from embattle.training.losses import LOSSES
from embattle.training.sampling import in_batch_triplets


@LOSSES.register(
    "triplet",
    example=lambda: Triplet(similarity=Cosine(), margin=0.2),
    paper="Schroff et al., FaceNet (CVPR 2015), eq. 3; Adversarial Ranking Attack and Defense (ECCV 2020), section 4.1",
    differs="FaceNet squares the Euclidean distance; the ranking paper's code, which we follow, does not",
)
@dataclass(frozen=True, kw_only=True)
class Triplet:
    """Triplet loss: mean over triplets (a, p, n) of max(0, d(a, p) - d(a, n) + margin).

    d is the similarity's distance: 1 - cosine, or the Euclidean distance (not squared). The triplets are those of
    `in_batch_triplets`.

    Args:
        similarity: what the embedding will be searched with.
        margin: how much farther than the positive a negative must be; 0.2 (cosine) or 1.0 (Euclidean) in the paper.
    """

    similarity: Similarity
    margin: float

    def __call__(self, embeddings: Tensor, labels: Tensor, rng: Generator) -> Tensor:
        """Loss of (B, D) embeddings with (B,) labels, a scalar."""
        drawn = in_batch_triplets(labels, rng)
        # index_select and not embeddings[...]: the gradient of the latter adds up in an order that varies over threads.
        return self.of(*(embeddings.index_select(0, part) for part in (drawn.anchors, drawn.positives, drawn.negatives)))

    def of(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Loss of T given triplets of embeddings, each (T, D), a scalar."""
        return (self.hardness(anchors, positives, negatives) + self.margin).clamp_min(0).mean()

    def hardness(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """d(a, p) - d(a, n) of T triplets of embeddings, each (T, D), (T,)."""
        to_positive, to_negative = (self.similarity.pair(anchors, others) for others in (positives, negatives))
        return self.distance(to_positive) - self.distance(to_negative)

    def distance(self, values: Tensor) -> Tensor:
        """The distance d that similarities stand for."""
        return self.similarity.distance(values)
