"""Checkpoints: one safetensors file that carries weights, the network's name and arguments, and the preprocessing.

Nothing in it is executed on loading (house rule: files from outside are hostile).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from embattle import networks
from embattle.embedders.embedder import Embedder
from embattle.embedders.preparation import LARGEST_SIDE
from embattle.errors import ModelError
from embattle.records import write_atomic

FORMAT = "embattle.checkpoint/1"
_KEYS = {"network", "network_args", "similarity", "channels", "size", "mean", "std"}


_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class _Meta(BaseModel):
    """What a checkpoint's configuration must be; the file is hostile until it has passed."""

    model_config = ConfigDict(strict=False, extra="ignore")

    network: str
    network_args: dict[str, bool | int | float | str]
    similarity: Literal["cosine", "euclidean"]
    channels: Literal[1, 3]
    size: _Side | tuple[_Side, _Side] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def save_checkpoint(
    path: Path,
    module: nn.Module,
    *,
    network: str,
    network_args: Mapping[str, Any],
    similarity: str,
    channels: int,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `module` with everything needed to use it again; the file appears complete or not at all.

    Args:
        path: where to write; ".safetensors" by custom.
        module: built by `networks.build(network, **network_args)`.
        network, network_args: how to build the module again.
        similarity, channels, size, mean, std: as in `Embedder`.
        training: anything worth knowing about how it was trained; kept, never interpreted.

    Raises:
        InputError: the folder cannot be written to.
        RunIncomplete: the disk is full.
    """
    meta = {
        "format": FORMAT, "network": network, "network_args": dict(network_args), "similarity": similarity,
        "channels": channels, "size": size, "mean": mean, "std": std, "training": dict(training or {}),
    }  # fmt: skip
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    payload = safetensors.torch.save(state, metadata={"embattle": json.dumps(meta, sort_keys=True)})
    path = Path(path)
    write_atomic(path, payload)
    return path


def read_meta(path: Path) -> dict[str, Any]:
    """The configuration inside a checkpoint, without loading its weights.

    Raises:
        ModelError: no such file, not a safetensors file, or not one that Embattle wrote.
    """
    if not Path(path).is_file():
        raise ModelError(f"there is no checkpoint file at {path}; write one with: embattle train --out {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("embattle")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); it may be cut off or damaged") from error
    if text is None:
        raise ModelError(
            f"{path} holds weights but not which network they belong to; load it in Python with your own module, or "
            f"give a factory: --model module:your.package:factory"
        )
    try:
        meta = json.loads(text)
    except ValueError as error:
        raise ModelError(f"the configuration inside {path} is not JSON ({error}); train or export it again") from error
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise ModelError(f"{path} has format {found!r}; this version reads {FORMAT!r}")
    lacking = sorted(_KEYS - meta.keys())
    if lacking:
        raise ModelError(f"the configuration inside {path} lacks {', '.join(lacking)}; train or export it again")
    return {str(key): value for key, value in meta.items()}


def load_checkpoint(path: Path) -> Embedder:
    """The Embedder stored in a checkpoint.

    Raises:
        ModelError: the file cannot be read, or its weights do not fit its network.
    """
    try:
        meta = _Meta.model_validate(read_meta(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"the configuration inside {path} has {key} = {first.get('input')!r} ({first['msg'].lower()}); train or export "
            f"it again"
        ) from None
    try:
        state = safetensors.torch.load_file(str(path))
        # On the meta device nothing is allocated: what the file claims is held against what it brings before memory is.
        with torch.device("meta"):
            claimed = networks.build(meta.network, **meta.network_args).state_dict()
        expected = {key: tuple(value.shape) for key, value in claimed.items()}
        if expected != {key: tuple(value.shape) for key, value in state.items()}:
            raise ModelError(f"the weights in {path} do not fit network {meta.network!r} with {meta.network_args}")
        # Building draws first weights, which the stored ones replace: the caller's random numbers must not notice.
        with torch.random.fork_rng(devices=[]):
            module = networks.build(meta.network, **meta.network_args).eval()
        module.load_state_dict(state)
    except (RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"the weights in {path} do not fit network {meta.network!r}: {error}") from error
    return Embedder(
        module, similarity=meta.similarity, channels=meta.channels, size=meta.size, mean=meta.mean, std=meta.std,
        name=f"{meta.network} ({Path(path).stem})",
    )  # fmt: skip
