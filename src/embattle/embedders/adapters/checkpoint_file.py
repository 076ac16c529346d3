"""`checkpoint:PATH` — a file written by `embattle train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.checkpoint import load_checkpoint
from embattle.embedders.embedder import Embedder
from embattle.errors import ConfigError


@ADAPTERS.register("checkpoint", access="gradient")
def checkpoint(path: str, **preprocessing: Any) -> Embedder:
    """A checkpoint of Embattle's own; it carries its preprocessing, so none may be given beside it."""
    if preprocessing:
        given = ", ".join(sorted(preprocessing))
        raise ConfigError(f"a checkpoint carries its own preprocessing; leave out: {given}")
    return load_checkpoint(Path(path))
