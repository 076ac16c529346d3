"""What a training step minimises: plain metric learning here, defenses in their own package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.random import Generator
from torch import Tensor

from embattle.embedders import EMBEDDING, Embedder
from embattle.rng import generator
from embattle.training.losses import Loss


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step sees.

    Args:
        x: (B, C, H, W) pictures in [0, 1], on the model's device.
        labels: (B,) classes on the same device; None where the pictures have none.
        ids: a stable id of each picture: its position in the training pictures.
        seed, epoch, number: what draws of this step are keyed by: the run's seed, the epoch from 1 and the batch from 0.
        previous_loss: the loss of the batch before; None at the very first.
    """

    x: Tensor
    labels: Tensor | None
    ids: tuple[str, ...]
    seed: int
    epoch: int
    number: int
    previous_loss: float | None

    def rng(self, stream: str = "tuples") -> Generator:
        """The generator that this batch's tuples, or what else `stream` names, are drawn from; a new one at every call."""
        return generator(self.seed, stream, self.epoch, self.number)


class TrainStep(Protocol):
    """What the trainer minimises."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that changes a number, as plain values; part of the run's identity."""
        ...

    @property
    def needs_labels(self) -> bool:
        """Whether pictures without labels cannot be trained on."""
        ...

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """The batch's loss, a scalar with a graph to the module's parameters; the module is in train mode."""
        ...


@dataclass(frozen=True, kw_only=True)
class MetricLearning:
    """The plain step: the metric-learning loss of the clean pictures."""

    metric_loss: Loss

    needs_labels = True

    @property
    def settings(self) -> Mapping[str, Any]:
        """Nothing beyond the training's own settings."""
        return {}

    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """Loss of the clean pictures."""
        return metric_loss(self.metric_loss, embedder, batch, batch.x)


def metric_loss(loss: Loss, embedder: Embedder, batch: Batch, x: Tensor) -> Tensor:
    """A metric-learning loss of `x`, which stands for the batch's pictures, under the batch's labels and draws."""
    assert batch.labels is not None, "the trainer has looked: this step needs labels"
    return loss(embedder.outputs(x)[EMBEDDING], batch.labels, batch.rng())
