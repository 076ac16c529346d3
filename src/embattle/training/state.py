"""The state of an unfinished training run after an epoch, in one safetensors file that is written atomically.

Draws are keyed by (seed, epoch, batch), so weights, optimiser and the number of finished epochs are the whole state: no
generator has to be stored. The file holds tensors and JSON only; reading it executes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from embattle.errors import InputError, RunMismatch
from embattle.records.atomic import write_atomic

SCHEMA = "embattle.training-state/1"


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run has come: the finished epochs' history rows; weights and optimiser are loaded in place."""

    digest: str
    history: tuple[dict[str, Any], ...]


def state_path(out: Path) -> Path:
    """Where the state of the run that will write `out` lies."""
    return out.with_name(f"{out.stem}.state.safetensors")


def state_digest(path: Path) -> str | None:
    """The run that a state file belongs to; None when there is no file or it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("digest")
    except (SafetensorError, OSError):
        return None


def going_on(epoch: int, epochs: int) -> str:
    """The sentence for whoever starts an interrupted training again.

    >>> going_on(3, 30)
    'going on after epoch 3 of 30'
    """
    return f"going on after epoch {epoch} of {epochs}"


def epochs_done(out: Path) -> int:
    """How many epochs of the run that will write `out` an earlier start has finished; 0 where no state can be read."""
    try:
        with safe_open(state_path(out), framework="pt") as file:
            return len(json.loads((file.metadata() or {})["history"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return 0


def save_state(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, state: State) -> None:
    """Writes the state so that the file is always a whole one: the old or the new.

    Raises:
        RunIncomplete: the disk is full.
        InputError: the folder cannot be written.
    """
    tensors = {f"module.{name}": tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    for position, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{position}.{slot}": value.detach().cpu() for slot, value in slots.items()}
    metadata = {"schema": SCHEMA, "digest": state.digest, "history": json.dumps(state.history)}
    write_atomic(path, save(tensors, metadata))


def load_state(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, digest: str) -> State | None:
    """Loads a state into module and optimiser; None when there is no such file.

    Raises:
        RunMismatch: the file belongs to other settings or other data.
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        history = tuple(json.loads(metadata["history"])) if metadata.get("schema") == SCHEMA else None
    except (SafetensorError, json.JSONDecodeError, KeyError, OSError) as error:
        raise InputError(_damaged(path, str(error))) from error
    if history is None:
        raise InputError(_damaged(path, f"its schema is {metadata.get('schema')!r}, not {SCHEMA!r}"))
    if metadata.get("digest") != digest:
        raise RunMismatch(
            f"{path} is the unfinished training of other settings or other data; write to another --out, or add "
            "--no-resume to discard it and begin again"
        )
    try:
        _restore(tensors, module, optimiser)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(_damaged(path, str(error))) from error
    return State(digest=digest, history=history)


def _restore(tensors: dict[str, Tensor], module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    prefix = "module."
    module.load_state_dict({name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, position, slot = name.split(".", 2)
            slots.setdefault(int(position), {})[slot] = value
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})


def _damaged(path: Path, why: str) -> str:
    return f"{path} is no readable training state ({why}); delete it, or add --no-resume to begin again"
