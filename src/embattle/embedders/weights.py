"""Weights alone: a safetensors file for a model whose structure and preprocessing come from somewhere else.

Nothing in it is executed, and it does not say which model it belongs to: a file from outside must not choose what is
imported. Whoever loads it names the model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from embattle.embedders.embedder import Embedder
from embattle.errors import ModelError
from embattle.records import write_atomic

FORMAT = "embattle.weights/1"


def save_weights(path: Path, embedder: Embedder, training: Mapping[str, Any] | None = None) -> Path:
    """Writes the weights and buffers of an embedder's module; the file appears complete or not at all.

    Args:
        path: where to write; ".safetensors" by custom.
        embedder: whose module is written.
        training: anything worth knowing about how it was trained; kept, never interpreted.

    Raises:
        InputError: the folder cannot be written to.
        RunIncomplete: the disk is full.
    """
    # Copies, because the format refuses tensors that share memory (tied weights).
    state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in embedder.module.state_dict().items()}
    meta = {"format": FORMAT, "training": dict(training or {})}
    path = Path(path)
    write_atomic(path, safetensors.torch.save(state, metadata={"embattle": json.dumps(meta, sort_keys=True)}))
    return path


def load_weights(path: Path, base: Embedder) -> Embedder:
    """A copy of `base` with the weights of a file; the base stays as it is.

    Raises:
        ModelError: no such file, not one that Embattle wrote, or weights of another model.
    """
    weights_training(path)
    module = copy.deepcopy(base.module)
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    try:
        state = safetensors.torch.load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); it may be cut off or damaged") from error
    found = {key: tuple(value.shape) for key, value in state.items()}
    if found != expected:
        raise ModelError(f"the weights in {path} do not fit {base.name}: {_difference(found, expected)}")
    module.load_state_dict(state)
    loaded = base.sharing_preprocessing(module)
    loaded.name = f"{base.name} ({Path(path).stem})"
    return loaded


def weights_training(path: Path) -> Mapping[str, Any]:
    """What `save_weights` was told about the training.

    Raises:
        ModelError: no such file, or not one that it wrote.
    """
    if not Path(path).is_file():
        raise ModelError(f"there is no file of weights at {path}; embattle harden writes one")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("embattle", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); it may be cut off or damaged") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT or not isinstance(meta.get("training"), dict):
        found = meta.get("format") if isinstance(meta, dict) else None
        hint = "load it with --model checkpoint:PATH" if str(found).startswith("embattle.checkpoint") else f"not {FORMAT!r}"
        raise ModelError(f"{path} has the format {found!r}; {hint}")
    training: Mapping[str, Any] = meta["training"]
    return training


def _difference(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first tensor that is missing, unknown or of another shape."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            return f"it has {key} of shape {expected.get(key, 'none')}, the file {found.get(key, 'none')}"
    return "they agree"
