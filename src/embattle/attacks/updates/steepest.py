"""Fixed steps along the steepest direction of the norm: the sign of the gradient for Linf (BIM, PGD)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embattle.attacks.tree import Tree
from embattle.attacks.updates import UPDATES, Point, Space
from embattle.errors import BudgetError


def check_step_size(step_size: float) -> None:
    """BudgetError unless the step is a finite positive number."""
    if not 0 < step_size < float("inf"):
        raise BudgetError(f"step_size must be a finite number above 0 in pixel units, not {step_size!r}")


@UPDATES.register("steepest", example=lambda: Steepest(step_size=0.02), paper="Madry et al. 2018, section 2.1")
@dataclass(frozen=True, kw_only=True)
class Steepest:
    """Moves by `step_size` along the steepest direction, then back into the budget.

    Args:
        step_size: α in pixel units.
    """

    step_size: float

    def __post_init__(self) -> None:
        check_step_size(self.step_size)

    def init(self, delta: Tensor) -> Tree:
        """No state."""
        return {}

    def step(self, state: Tree, at: Point, space: Space) -> tuple[Tree, Tensor]:
        """Moves to delta + α · steepest(grad), projected."""
        return state, space.project(at.delta + self.step_size * space.budget.steepest(at.grad))
