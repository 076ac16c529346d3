"""Gradient steps in bfloat16: a twin of the model that is asked for directions and for nothing that is reported.

A sign step needs little of a gradient, and half the bits are half the memory traffic; processors with bfloat16 instructions
multiply them faster, too. Objectives and projections stay float32, and the iterate that is returned is scored by the model
itself.
"""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from embattle.attacks.surrogate import Surrogate
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError, ModelError

Precision = Literal["float32", "bfloat16"]


def check_precision(precision: object) -> None:
    """ConfigError unless "float32" or "bfloat16"."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be 'float32' or 'bfloat16', not {precision!r}")


def stepping(surrogate: Surrogate, precision: Precision, x: Tensor) -> Surrogate:
    """What gradient steps are taken on: the surrogate itself, or its bfloat16 twin.

    Args:
        surrogate: the attacked model.
        precision: "float32" or "bfloat16".
        x: (1, C, H, W) a picture to try the twin with.

    Raises:
        ConfigError: bfloat16 for anything but a plain Embedder, whose edits a copy would not take part in.
        ModelError: a model that cannot be copied or does not run in bfloat16.
    """
    if precision == "float32":
        return surrogate
    if not isinstance(surrogate, Embedder):
        raise ConfigError(
            f"precision='bfloat16' works on an Embedder, not on a {type(surrogate).__name__}; leave precision out"
        )
    try:
        # Gradients are needed also where the caller has switched them off for good.
        with torch.enable_grad():
            twin = _twin(surrogate)
            leaf = x.detach().requires_grad_(True)
            with twin.frozen():
                torch.autograd.grad(twin.outputs(leaf)[EMBEDDING].float().sum(), leaf, allow_unused=True)
    except Exception as error:  # whatever a stranger's model raises in a precision it was not written for
        told = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"{surrogate.name} does not run in bfloat16 ({type(error).__name__}: {told}); leave out precision='bfloat16'"
        ) from error
    return twin


def _twin(embedder: Embedder) -> Embedder:
    """A copy whose floating-point tensors are bfloat16 and whose filters lie channels-last, as its kernels want them."""
    # Given to deepcopy as already copied, float32 weights are converted once instead of being copied first.
    converted: dict[int, object] = {}
    for tensor in (*embedder.module.parameters(), *embedder.module.buffers()):
        if tensor.is_floating_point():
            layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
            low = tensor.detach().to(torch.bfloat16, memory_format=layout)
            converted[id(tensor)] = nn.Parameter(low, requires_grad=False) if isinstance(tensor, nn.Parameter) else low
    return embedder.sharing_preprocessing(copy.deepcopy(embedder.module, converted))
