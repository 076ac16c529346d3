"""What a model's first layer sees: the only place where all preprocessing, wanted and unwanted, has happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sight:
    """The input of a layer: its name and type, the range of the values, their shape."""

    layer: str
    low: float
    high: float
    mean: float
    finite: bool
    shape: tuple[int, ...]

    @property
    def size(self) -> str:
        """One picture's shape in words."""
        return "x".join(map(str, self.shape[1:]))


@contextmanager
def first_sight(module: nn.Module) -> Iterator[list[Sight]]:
    """Yields a list to which the next forward pass adds what the first layer saw: the first one with weights, if any.

    Args:
        module: any module; it has the hooks it had before afterwards, also when an exception passes.
    """
    leaves = [(name, leaf) for name, leaf in module.named_modules() if not list(leaf.children())]
    weighted = [(name, leaf) for name, leaf in leaves if list(leaf.parameters(recurse=False))]
    sights: list[Sight] = []
    handles = [leaf.register_forward_pre_hook(_look(name, sights)) for name, leaf in weighted or leaves]
    try:
        yield sights
    finally:
        for handle in handles:
            handle.remove()


def _look(name: str, sights: list[Sight]) -> Any:
    def hook(layer: nn.Module, inputs: tuple[object, ...]) -> None:
        if sights or not inputs or not isinstance(inputs[0], Tensor):
            return
        values = inputs[0].detach().float()
        low, high = (value.item() for value in torch.aminmax(values))
        sights.append(
            Sight(
                layer=f"{type(layer).__name__} {name}".strip(), low=low, high=high, mean=float(values.mean()),
                finite=bool(torch.isfinite(values).all()), shape=tuple(values.shape),
            )
        )  # fmt: skip

    return hook
