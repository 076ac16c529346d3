"""A model in training, whose identity lasts for a batch."""

from __future__ import annotations

from torch import nn

from embattle.embedders import fingerprint as fingerprints
from embattle.embedders.embedder import Embedder
from embattle.similarity import Similarity


class Learner(Embedder):
    """An Embedder whose weights are others after every batch.

    An attack asks once whose space its objective was bound in. Hashing every byte of the weights for that takes a sixth of
    an attack's step, and no answer is ever asked for again: so a learner is told apart by the cheap sign alone.
    """

    @classmethod
    def of(cls, embedder: Embedder, module: nn.Module, *, similarity: str | Similarity | None = None) -> Learner:
        """A module in training behind an embedder's preprocessing and name; `similarity` None: also its similarity."""
        return cls(
            module, similarity=similarity or embedder.similarity, channels=embedder.channels, size=embedder.size,
            mean=embedder.mean, std=embedder.std, name=embedder.name,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Changes whenever the weights do, and means nothing in another process."""
        return fingerprints.sign(*self._described()).hex()
