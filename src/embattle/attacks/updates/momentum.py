"""Fixed steps along an accumulated direction (MI-FGSM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from embattle.attacks.tree import Tree
from embattle.attacks.updates import UPDATES, Point, Space
from embattle.attacks.updates.steepest import check_step_size
from embattle.errors import ConfigError


@UPDATES.register("momentum", example=lambda: Momentum(step_size=0.02), paper="Dong et al. 2018, Algorithm 1")
@dataclass(frozen=True, kw_only=True)
class Momentum:
    """Accumulates gradients divided by their norm, never their signs, and steps along the sum.

    A zero gradient adds nothing, so it cannot poison the sum with 0/0.

    Args:
        step_size: α in pixel units.
        decay: μ; 1 weighs all past gradients alike, 0 is plain steepest ascent.
        norm: "l1" (Dong et al.) or "l2" (Zhong and Deng 2020, Eq. 9).
    """

    step_size: float
    decay: float = 1.0
    norm: Literal["l1", "l2"] = "l1"

    def __post_init__(self) -> None:
        check_step_size(self.step_size)
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"decay must lie in [0, 1], not {self.decay!r}")
        if self.norm not in ("l1", "l2"):
            raise ConfigError(f"norm must be 'l1' or 'l2', not {self.norm!r}")

    def init(self, delta: Tensor) -> Tree:
        """No gradient seen yet."""
        return {"velocity": torch.zeros_like(delta)}

    def step(self, state: Tree, at: Point, space: Space) -> tuple[Tree, Tensor]:
        """Moves to delta + α · steepest(μ · velocity + grad / ‖grad‖), projected."""
        size = at.grad.flatten(1).norm(p=1 if self.norm == "l1" else 2, dim=1).view(-1, 1, 1, 1)
        unit = torch.where(
            size > 0, at.grad / torch.where(size > 0, size, torch.ones_like(size)), torch.zeros_like(at.grad)
        )
        velocity = self.decay * state["velocity"] + unit
        return {"velocity": velocity}, space.project(at.delta + self.step_size * space.budget.steepest(velocity))
