"""Models under test: the Embedder, where models come from, and their checkpoints."""

from __future__ import annotations

from typing import Any

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.checkpoint import load_checkpoint, read_meta, save_checkpoint
from embattle.embedders.embedder import EMBEDDING, IMAGENET_MEAN, IMAGENET_STD, Embedder, check_pixels
from embattle.embedders.learner import Learner
from embattle.embedders.preparation import picture_side
from embattle.embedders.weights import load_weights, save_weights, weights_training
from embattle.errors import ConfigError

__all__ = [
    "ADAPTERS",
    "EMBEDDING",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Embedder",
    "Learner",
    "check_pixels",
    "load",
    "load_checkpoint",
    "load_weights",
    "picture_side",
    "read_meta",
    "save_checkpoint",
    "save_weights",
    "weights_training",
]


def load(spec: str, **preprocessing: Any) -> Embedder:
    """The Embedder a specification names.

    Args:
        spec: one of

            - "checkpoint:PATH", a file written by `embattle train`;
            - "module:package.module:factory", a function of yours that returns a torch module or an `Embedder`;
            - "hf:PATH", a folder written by transformers' `save_pretrained`;
            - "timm:PATH", a folder written by `timm.models.save_for_hf`, "timm:NAME@WEIGHTS.safetensors", or "timm:NAME"
              for pretrained weights that are in the local cache;
            - "onnx:PATH", a file with one picture input and an open batch axis;
            - "weights:FILE@MODEL", one of the others with the weights that `embattle harden` gave it.

            Nothing is fetched, and apart from the factory nothing in what is loaded is executed.
        preprocessing: `similarity` for every source but checkpoints; `channels`, `size`, `mean`, `std` for module:, and
            where they shall take the place of what hf: and timm: models say of themselves; `mean` and `std` for onnx:.

    Raises:
        ConfigError: no known scheme, or preprocessing that the source does not take.
        ModelError: the model cannot be loaded.
        MissingDependency: the library that the source needs is not installed.

    >>> load("resnet50")
    Traceback (most recent call last):
        ...
    embattle.errors.ConfigError: model 'resnet50' is not understood; write one of checkpoint:..., hf:..., module:..., \
onnx:..., timm:..., weights:...
    """
    scheme, colon, rest = spec.partition(":")
    if not colon or not rest or scheme not in ADAPTERS:
        allowed = ", ".join(f"{entry.name}:..." for entry in ADAPTERS)
        raise ConfigError(f"model {spec!r} is not understood; write one of {allowed}")
    embedder: Embedder = ADAPTERS[scheme].build(rest, **preprocessing)
    return embedder
