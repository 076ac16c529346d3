"""Steps that halve themselves when progress stalls, and go back to the best point (Auto-PGD)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embattle.attacks.tree import Tree, where
from embattle.attacks.updates import UPDATES, Point, Space
from embattle.errors import ConfigError

# Of the first step, as a multiple of ε.
FIRST_STEP = 0.5


def checkpoints(steps: int) -> tuple[int, ...]:
    """After how many steps progress is looked at: 22 % of them, then at gaps that shrink by 3 % down to 6 %.

    >>> checkpoints(100)[:4]
    (22, 41, 57, 70)
    """
    share, gap, found = 0.22, 0.22, []
    while share < 1:
        found.append(math.ceil(round(share * steps, 6)))
        gap = max(gap - 0.03, 0.06)
        share += gap
    return tuple(dict.fromkeys(c for c in found if c < steps))


@UPDATES.register(
    "adaptive",
    example=lambda: Adaptive(),
    paper="Croce and Hein 2020, Reliable Evaluation of Adversarial Robustness, Algorithm 1",
    differs="first step ε/2, not 2ε; per perturbation throughout; any objective; progress is looked at before a step "
    "instead of after it",
)
@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Auto-PGD: starts with steps of a share of ε and halves them per perturbation when progress stalls.

    A step is halved, and the walk resumes from the best point seen, when fewer than `rho` of the last steps rose, or when
    neither the step size nor the best loss changed since the previous checkpoint.

    The published first step, 2ε, is one for a hundred steps; thirty hold too few halvings to come down from it. On training
    pictures of Fashion-MNIST and MNIST a first step of ε/2 found mean losses no lower than 2ε did in any of 21 comparisons.

    Args:
        first: the first step as a multiple of ε; 2 in the paper.
        rho: share of rising steps below which progress counts as stalled.
        momentum: weight of the new step against the previous move.
    """

    first: float = FIRST_STEP
    rho: float = 0.75
    momentum: float = 0.75

    def __post_init__(self) -> None:
        if not 0 < self.first < math.inf:
            raise ConfigError(f"first is the first step as a multiple of ε, a positive number, not {self.first!r}")
        if not 0 < self.rho < 1 or not 0 < self.momentum <= 1:
            raise ConfigError(f"rho and momentum must lie in (0, 1], not {self.rho!r} and {self.momentum!r}")

    def init(self, delta: Tensor) -> Tree:
        """Step size as a multiple of ε, and nothing seen yet."""
        row = delta.new_zeros(len(delta))
        return {
            "previous": delta, "best": delta, "best_grad": torch.zeros_like(delta), "best_loss": row - math.inf,
            "last_loss": row - math.inf, "rises": row, "factor": row + self.first,
            "checked_factor": row + self.first,
            "checked_loss": row - math.inf, "checked_step": row,
        }  # fmt: skip

    def step(self, state: Tree, at: Point, space: Space) -> tuple[Tree, Tensor]:
        """One step of Algorithm 1 for every perturbation."""
        new = self._remember(state, at)
        new, delta, grad = self._halve_where_stalled(new, at)
        size = (new["factor"] * space.budget.eps).view(-1, 1, 1, 1)
        proposal = space.project(delta + size * space.budget.steepest(grad))
        mixed = delta + self.momentum * (proposal - delta) + (1 - self.momentum) * (delta - new["previous"])
        nxt = where(at.step == 0, proposal, space.project(mixed))
        # After going back to the best point, that point is where this step came from (Algorithm 1, line 16).
        return {**new, "previous": delta}, nxt

    @staticmethod
    def _remember(state: Tree, at: Point) -> dict[str, Tensor]:
        better = at.loss > state["best_loss"]
        rose = (at.loss > state["last_loss"]) & (at.step > 0)
        return {
            **state,
            "best": where(better, at.delta, state["best"]),
            "best_grad": where(better, at.grad, state["best_grad"]),
            "best_loss": torch.where(better, at.loss, state["best_loss"]),
            "rises": state["rises"] + rose,
            "last_loss": at.loss,
        }

    def _halve_where_stalled(self, state: dict[str, Tensor], at: Point) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        marks = torch.tensor(checkpoints(at.steps), device=at.step.device)
        here = torch.isin(at.step, marks)
        few = state["rises"] < self.rho * (at.step - state["checked_step"])
        stuck = (state["factor"] == state["checked_factor"]) & (state["best_loss"] <= state["checked_loss"])
        halve = here & (few | stuck)
        checked = {
            "checked_factor": torch.where(here, state["factor"], state["checked_factor"]),
            "checked_loss": torch.where(here, state["best_loss"], state["checked_loss"]),
            "checked_step": torch.where(here, at.step.to(state["checked_step"].dtype), state["checked_step"]),
            "rises": torch.where(here, torch.zeros_like(state["rises"]), state["rises"]),
            "factor": torch.where(halve, state["factor"] / 2, state["factor"]),
        }
        return {**state, **checked}, where(halve, state["best"], at.delta), where(halve, state["best_grad"], at.grad)
