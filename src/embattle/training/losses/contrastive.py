"""The contrastive (siamese) loss over all pairs of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

from embattle.similarity import Cosine, Similarity
from embattle.training.losses import LOSSES


@LOSSES.register(
    "contrastive",
    example=lambda: Contrastive(similarity=Cosine(), margin=0.2),
    paper="Hadsell et al. (CVPR 2006), equation 4; Adversarial Ranking Attack and Defense (ECCV 2020), section 4.1",
    differs="distances are not squared and there is no factor 1/2, as in the ranking paper's code",
)
@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Contrastive loss: mean over all B² ordered pairs of d(i, j) if the classes agree, else max(0, margin - d(i, j)).

    d is the similarity's distance: 1 - cosine, or the Euclidean distance (not squared). A picture paired with itself
    counts in the mean with loss 0.

    Args:
        similarity: what the embedding will be searched with.
        margin: distance beyond which a pair of different classes costs nothing; 0.2 (cosine) or 1.0 (Euclidean).
    """

    similarity: Similarity
    margin: float

    def __call__(self, embeddings: Tensor, labels: Tensor, rng: Generator) -> Tensor:
        """Loss of (B, D) embeddings with (B,) labels, a scalar; draws nothing from `rng`."""
        distance = self.similarity.distance(self.similarity.cross(embeddings, embeddings))
        same = labels[:, None] == labels[None, :]
        # The diagonal is cut off and not just small: the square root would amplify its rounding noise in the gradient.
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        cost = torch.where(same, distance, (self.margin - distance).clamp_min(0))
        return cost.masked_fill(itself, 0).mean()
