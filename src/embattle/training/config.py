"""What a training run is: every setting that changes a number in the trained weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from embattle.errors import ConfigError
from embattle.networks import NETWORKS
from embattle.records.unit import canonical_json
from embattle.similarity import by_name
from embattle.training.losses import LOSSES, MARGINS

# Batch sizes of the ranking paper's code for each similarity.
BATCH_SIZES = {"cosine": 1000, "euclidean": 500}


class TrainConfig(BaseModel):
    """Settings of a training run, with the ranking paper's as defaults (ECCV 2020, section 4.1, and its code).

    Args:
        network: a name of `NETWORKS`; None: the training goes on from a model that is given.
        network_args: arguments of the network's constructor.
        loss: a name of `LOSSES`.
        similarity: "cosine" or "euclidean".
        margin: the loss's margin, > 0; unset: 0.2 (cosine) or 1.0 (Euclidean).
        epochs: passes over the training pictures, >= 1; the paper uses 30.
        batch_size: pictures a step, >= 2; unset: 1000 (cosine) or 500 (Euclidean). An epoch is cut into the fewest
            batches that are no larger, all of the same size up to one picture.
        lr: Adam's learning rate, > 0; no weight survives one beyond 1e6.
        weight_decay: Adam's weight decay, >= 0.
        seed: of the first weights, the order and the triplets, >= 0.
        threads: processor threads of torch, >= 1; they are part of the configuration because sums round differently.
        device: "cpu" or a torch device such as "cuda:0"; bit-equal runs are promised on the cpu only.

    Raises:
        ConfigError: from `parse`, for an unknown key or a value outside these ranges.

    >>> TrainConfig(network="c2f1", similarity="euclidean").batch_size
    500
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    network: str | None = "c2f1"
    network_args: dict[str, Any] = Field(default_factory=dict)
    loss: str = "triplet"
    similarity: str = "cosine"
    margin: float = Field(default=MARGINS["cosine"], gt=0, allow_inf_nan=False)
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=BATCH_SIZES["cosine"], ge=2)
    lr: float = Field(default=1e-3, gt=0, le=1e6, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-7, ge=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=2, ge=1)
    device: str = "cpu"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_similarity(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        filled = {key: value for key, value in given.items() if not (key in ("margin", "batch_size") and value is None)}
        similarity = filled.get("similarity", "cosine")
        if similarity in MARGINS:
            filled.setdefault("margin", MARGINS[similarity])
            filled.setdefault("batch_size", BATCH_SIZES[similarity])
        return filled

    @field_validator("network", "loss", "similarity")
    @classmethod
    def _known(cls, name: str | None, info: Any) -> str | None:
        if info.field_name == "similarity":
            by_name(str(name))
        elif name is not None:
            _ = (NETWORKS if info.field_name == "network" else LOSSES)[name]
        return name

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Builds a configuration from plain settings; what is wrong with them comes out as a ConfigError."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(_sentence(error, cls)) from None

    def digest(self, data: str, **further: Any) -> str:
        """Sha256 of these settings, of the training data's fingerprint and of whatever else belongs to a run's identity."""
        text = canonical_json({"config": self.model_dump(mode="json"), "data": data, **further})
        return hashlib.sha256(text.encode()).hexdigest()


def _sentence(error: ValidationError, settings: type[TrainConfig]) -> str:
    known = ", ".join(settings.model_fields)
    parts = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            parts.append(f"training has no setting {key!r}; it has: {known}")
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            # What is wrong with several settings together, or with one that is missing, says so itself.
            parts.append(f"training setting {key!r} cannot be {problem['input']!r}: {reason}" if key else reason)
    return "; ".join(parts)
