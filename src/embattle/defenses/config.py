"""What a hardening is: a training run with an attack inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from embattle.attacks.precision import Precision
from embattle.defenses.training import DEFENSES, InnerAttack
from embattle.defenses.training.defense import Defense, defense_class
from embattle.embedders import Embedder
from embattle.errors import ConfigError
from embattle.records.numerals import check_eps, pixel_units
from embattle.similarity import by_name
from embattle.training import LOSSES, TrainConfig
from embattle.training.losses import MARGINS

# A model that has learnt something is changed carefully, one that has not is not.
_LEARNING_RATES = {False: 1e-4, True: 1e-3}


class HardenConfig(TrainConfig):
    """Settings of defensive training: those of plain training, and the attack on every batch.

    Args:
        defense: a name of `DEFENSES`.
        eps: Linf budget of the attack inside, in pixel units of [0, 1]; a number, or a text such as "8/255".
        steps: gradient steps of that attack.
        step_size: α of a step; unset: 2.5 ε / steps.
        precision: of those steps, "float32" or "bfloat16".
        batch_norm: "train": batch-norm statistics come from the pictures that the loss is taken on; "frozen": they stay as
            they are, while the layers' weights learn. Unset: "train" with `fresh` weights, "frozen" otherwise.
        fresh: whether `network` is trained from fresh weights, as the papers do, and not the given model further.
        loss, margin: as in `TrainConfig`; not for defenses that need no labels, which have none.
        epochs, batch_size, lr: as in `TrainConfig`, with other defaults: 5, 128, and 1e-4 (1e-3 with `fresh`).

    Raises:
        ConfigError: from `parse`, for an unknown key or a value outside these ranges.

    >>> HardenConfig(defense="est", eps="8/255").step_size == 2.5 * 8 / 255 / 10
    True
    """

    network: str | None = None
    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=128, ge=2)
    defense: str
    eps: float = 8 / 255
    steps: int = Field(default=10, ge=1)
    step_size: float = Field(gt=0, allow_inf_nan=False)
    precision: Precision = "float32"
    batch_norm: Literal["train", "frozen"]
    fresh: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_others(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        filled = {"batch_size": 128, **{key: value for key, value in given.items() if value is not None}}
        if "defense" not in filled:
            raise ConfigError(f"no defense is named; give one of: {', '.join(entry.name for entry in DEFENSES)}")
        fresh = bool(filled.get("fresh"))
        filled.setdefault("lr", _LEARNING_RATES[fresh])
        filled.setdefault("batch_norm", "train" if fresh else "frozen")
        filled["eps"] = pixel_units(filled.get("eps", 8 / 255), "eps")
        if isinstance(filled["eps"], int | float):
            check_eps(filled["eps"])
        if "step_size" in filled:
            filled["step_size"] = pixel_units(filled["step_size"], "step_size")
        elif isinstance(filled["eps"], int | float) and isinstance(steps := filled.get("steps", 10), int) and steps > 0:
            filled["step_size"] = 2.5 * filled["eps"] / steps
        return filled

    @field_validator("defense")
    @classmethod
    def _defense(cls, name: str, info: Any) -> str:
        found = defense_class(name)
        loss = info.data.get("loss", "triplet")
        if not found.needs_labels:
            _without_metric_loss(found.name, info.data)
        if found.attacks_triplets and not str(loss).startswith("triplet"):
            raise ConfigError(f"it attacks triplets and cannot train with {loss}; write --loss triplet, or --defense est")
        return found.name

    def step(self, original: Embedder | None) -> Defense:
        """The training step: the defense with its attack and its loss.

        Args:
            original: the model before hardening; None where there was none.

        Raises:
            ConfigError: a defense that does not go with the loss.
        """
        inner = InnerAttack(eps=self.eps, steps=self.steps, step_size=self.step_size, precision=self.precision)
        loss = LOSSES[self.loss].build(similarity=by_name(self.similarity), margin=self.margin)
        step: Defense = DEFENSES[self.defense].build(inner=inner, metric_loss=loss, original=original)
        return step


def _without_metric_loss(name: str, given: Mapping[str, Any]) -> None:
    """Refuses settings of a loss that a defense without labels does not have: they would change nothing."""
    usual = {"loss": TrainConfig.model_fields["loss"].default, "margin": MARGINS[given.get("similarity", "cosine")]}
    for key, value in usual.items():
        if given.get(key, value) != value:
            raise ConfigError(
                f"{name} keeps the embeddings of a model and has no metric loss; leave out {key} = {given[key]}"
            )
