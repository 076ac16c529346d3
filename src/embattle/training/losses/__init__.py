"""Metric-learning losses; one file each.

A loss is built for one similarity and margin. Called with the embeddings of a batch, their labels and a generator for
its draws, it returns the mean loss, which training minimises. Margins are in the units of the similarity's distance.
"""

from __future__ import annotations

from typing import Protocol

from numpy.random import Generator
from torch import Tensor

from embattle.registry import Registry
from embattle.similarity import Similarity

__all__ = ["LOSSES", "MARGINS", "Loss"]

# Margins of the ranking paper's code for each similarity.
MARGINS = {"cosine": 0.2, "euclidean": 1.0}


class Loss(Protocol):
    """What the trainer minimises; constructed as `loss(similarity=..., margin=...)`."""

    similarity: Similarity
    margin: float

    def __call__(self, embeddings: Tensor, labels: Tensor, rng: Generator) -> Tensor:
        """Loss of a batch: (B, D) embeddings and (B,) labels -> a scalar."""
        ...


LOSSES: Registry = Registry("loss", "embattle.training.losses")
