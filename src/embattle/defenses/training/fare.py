"""FARE: attacked pictures keep the embedding that the original model gave the clean ones. It needs no labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embattle.attacks.objectives.shift import Shift
from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import Defense, embedded
from embattle.defenses.training.example import example
from embattle.embedders import Embedder, Learner
from embattle.errors import ConfigError
from embattle.training import Batch


@DEFENSES.register(
    "fare",
    example=lambda: example("fare"),
    paper="Schlarmann et al., Robust CLIP (ICML 2024), section 3.2, equation 3",
    access="gradient",
    differs="Adam instead of AdamW",
)
@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingPreserving(Defense):
    """Fine-tunes without labels: the worst embedding in the budget back to the ORIGINAL model's clean embedding.

    The distance is the squared Euclidean one of raw embeddings, whatever the model is searched with: all that was built on
    the original embeddings goes on working.

    Raises:
        ConfigError: no original model.
    """

    name = "fare"
    needs_labels = False

    def __post_init__(self) -> None:
        if self.original is None:
            raise ConfigError(
                "the defense 'fare' keeps the embeddings of a model that exists; give it: --model checkpoint:PATH, or "
                "another of: embattle list models"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of every defense, and which model's embeddings are kept."""
        assert self.original is not None
        return {**super().settings, "original": self.original.fingerprint}

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """Mean squared distance of attacked pictures' embeddings to the original clean ones."""
        assert self.original is not None
        with self.original.frozen(), torch.no_grad():
            clean = embedded(self.original, batch.x)
        measured = Learner.of(embedder, embedder.module, similarity="euclidean")
        attacked = self.inner(measured, batch.x, Shift(anchor=clean), batch, batch.ids)
        return ((embedded(embedder, attacked) - clean) ** 2).sum(1).mean()
