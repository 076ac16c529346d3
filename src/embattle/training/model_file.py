"""How a trained model is written to a file and found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from embattle.embedders import (
    Embedder,
    load_checkpoint,
    load_weights,
    read_meta,
    save_checkpoint,
    save_weights,
    weights_training,
)


class ModelFile(Protocol):
    """Writes the trained model and reads it back."""

    def save(self, path: Path, embedder: Embedder, training: Mapping[str, Any]) -> None:
        """Writes weights and what is worth knowing about their training; the file appears complete or not at all."""
        ...

    def load(self, path: Path) -> Embedder:
        """The model of a file that `save` wrote."""
        ...

    def training(self, path: Path) -> Mapping[str, Any]:
        """What `save` was told about the training."""
        ...


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A checkpoint of one of Embattle's networks: it says itself which network its weights belong to."""

    network: str
    network_args: Mapping[str, Any]

    def save(self, path: Path, embedder: Embedder, training: Mapping[str, Any]) -> None:
        """Writes the checkpoint."""
        save_checkpoint(
            path, embedder.module, network=self.network, network_args=self.network_args,
            similarity=embedder.similarity.name, channels=embedder.channels, size=embedder.size, mean=embedder.mean,
            std=embedder.std, training=training,
        )  # fmt: skip

    def load(self, path: Path) -> Embedder:
        """Reads the checkpoint."""
        return load_checkpoint(path)

    def training(self, path: Path) -> Mapping[str, Any]:
        """What the checkpoint says of its training."""
        training: Mapping[str, Any] = read_meta(path)["training"]
        return training


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Weights alone, for a model that comes from elsewhere.

    Args:
        base: the model as it comes; its structure and preprocessing are those of the trained one.
    """

    base: Embedder

    def save(self, path: Path, embedder: Embedder, training: Mapping[str, Any]) -> None:
        """Writes the weights."""
        save_weights(path, embedder, training)

    def load(self, path: Path) -> Embedder:
        """A copy of the base with the file's weights."""
        return load_weights(path, self.base)

    def training(self, path: Path) -> Mapping[str, Any]:
        """What the file says of its training."""
        return weights_training(path)
