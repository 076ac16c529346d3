"""What defenses have in common: an attack inside, a loss outside, and settings that name both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.inner import InnerAttack
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError
from embattle.training import Batch, Triplet
from embattle.training.losses import Loss


@dataclass(frozen=True, kw_only=True, eq=False)
class Defense(ABC):
    """A training step that attacks its own batch; subclasses give `loss`, and say whether they need labels and triplets.

    Args:
        inner: the attack.
        metric_loss: what a defense that needs labels minimises on attacked pictures.
        original: the model the training starts from; None where it starts from fresh weights.
    """

    inner: InnerAttack
    metric_loss: Loss
    original: Embedder | None = None

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = True
    attacks_triplets: ClassVar[bool] = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """The defense and its attack, for the run's identity."""
        return {"defense": self.name, **self.inner.settings}

    @abstractmethod
    def loss(self, embedder: Embedder, batch: Batch) -> Tensor:
        """The batch's loss after the attack."""


def defense_class(name: str) -> type[Defense]:
    """The defense called `name`, before it is built: what it needs of data and loss.

    Raises:
        ConfigError: there is none; the message has the nearest names.
    """
    return cast("type[Defense]", DEFENSES[name].build)


def triplet_of(defense: Defense) -> Triplet:
    """The triplet loss of a defense whose attack is one on triplets.

    Raises:
        ConfigError: another loss.
    """
    if not isinstance(defense.metric_loss, Triplet):
        raise ConfigError(
            f"the defense {defense.name!r} attacks triplets and cannot train with "
            f"{type(defense.metric_loss).__name__}; write --loss triplet, or --defense est"
        )
    return defense.metric_loss


def embedded(embedder: Embedder, x: Tensor) -> Tensor:
    """Embeddings of pictures in the module's present mode, with a graph to its parameters."""
    return embedder.outputs(x)[EMBEDDING]
