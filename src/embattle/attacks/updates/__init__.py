"""How a perturbation moves, given the gradient; one file per rule, found by the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from embattle.attacks.tree import Tree
from embattle.budget import Budget
from embattle.registry import Registry

UPDATES: Registry = Registry("update", "embattle.attacks.updates")


class Space(Protocol):
    """Where perturbations may be: the budget's ball cut with the pixel box of the pictures in flight."""

    @property
    def budget(self) -> Budget:
        """The ball."""
        ...

    def project(self, delta: Tensor) -> Tensor:
        """The perturbation brought back inside, (S, C, H, W)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a rule knows about each perturbation in flight; every tensor has the perturbation as first axis.

    Args:
        delta: (S, C, H, W) where it is.
        grad: gradient of the attacker's loss there; zero where it was not finite.
        loss: (S,) the loss there, higher = better; -inf where it was not finite.
        step: (S,) how many steps it has already made.
        steps: how many it will make in all.
    """

    delta: Tensor
    grad: Tensor
    loss: Tensor
    step: Tensor
    steps: int


class Update(Protocol):
    """A rule for moving perturbations uphill. Its state is a tree whose first axis is the perturbation."""

    def init(self, delta: Tensor) -> Tree:
        """The state of fresh perturbations."""
        ...

    def step(self, state: Tree, at: Point, space: Space) -> tuple[Tree, Tensor]:
        """The next state and the next perturbations, already projected."""
        ...
