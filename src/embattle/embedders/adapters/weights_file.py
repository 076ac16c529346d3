"""`weights:FILE@MODEL` — a model from any other source, with the weights that `embattle harden` gave it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.embedders.weights import load_weights
from embattle.errors import ConfigError


@ADAPTERS.register("weights", access="gradient")
def weights(path: str, **preprocessing: Any) -> Embedder:
    """A file of weights and the model they belong to, such as weights:hardened.safetensors@hf:PATH.

    Raises:
        ConfigError: no model behind the @, or preprocessing that the model does not take.
        ModelError: the model or the weights cannot be loaded, or do not fit each other.
    """
    schemes = "|".join(re.escape(entry.name) for entry in ADAPTERS if entry.name != "weights")
    # The first @ that a source follows: both paths may hold others.
    parts = re.fullmatch(rf"(?P<file>.+?)@(?P<scheme>{schemes}):(?P<rest>.+)", path)
    if parts is None:
        raise ConfigError(
            f"model 'weights:{path}' is not understood; write weights:FILE@MODEL with the model that was hardened, such as "
            f"weights:hardened.safetensors@hf:PATH"
        )
    base: Embedder = ADAPTERS[parts["scheme"]].build(parts["rest"], **preprocessing)
    return load_weights(Path(parts["file"]), base)
