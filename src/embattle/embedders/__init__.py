"""Models under test: the Embedder, where models come from, and their checkpoints."""

from __future__ import annotations

from typing import Any

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.checkpoint import load_checkpoint, read_meta, save_checkpoint
from embattle.embedders.embedder import EMBEDDING, IMAGENET_MEAN, IMAGENET_STD, Embedder, check_pixels
from embattle.errors import ConfigError

__all__ = [
    "ADAPTERS",
    "EMBEDDING",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Embedder",
    "check_pixels",
    "load",
    "load_checkpoint",
    "read_meta",
    "save_checkpoint",
]


def load(spec: str, **preprocessing: Any) -> Embedder:
    """The Embedder a specification names.

    Args:
        spec: "checkpoint:PATH", "module:package.module:factory" or "hf:PATH".
        preprocessing: `similarity`, `channels`, `size`, `mean`, `std` for sources that do not carry their own.

    Raises:
        ConfigError: no known scheme.
        ModelError: the model cannot be loaded.
    """
    scheme, colon, rest = spec.partition(":")
    if not colon or not rest or scheme not in ADAPTERS:
        allowed = ", ".join(f"{entry.name}:..." for entry in ADAPTERS)
        raise ConfigError(f"model {spec!r} is not understood; write one of {allowed}")
    embedder: Embedder = ADAPTERS[scheme].build(rest, **preprocessing)
    return embedder
