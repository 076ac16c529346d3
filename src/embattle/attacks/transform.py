"""Differentiable changes of the picture inside the loop (diverse inputs, translation, scale)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from embattle.rng import Rows


class Transform(Protocol):
    """Maps pictures (n, C, H, W) to pictures; random choices are drawn per row, from `rows`, never per batch."""

    def __call__(self, x: Tensor, rows: Rows) -> Tensor:
        """The transformed pictures; gradients flow through."""
        ...
