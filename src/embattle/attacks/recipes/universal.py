"""One perturbation for many pictures."""

from __future__ import annotations

from typing import Any

from embattle.attacks.loop import Attack
from embattle.attacks.recipes import ATTACKS, recipe
from embattle.attacks.updates.steepest import Steepest
from embattle.budget import Budget, Linf


def _example() -> Attack:
    attack: Attack = ATTACKS["universal"].build(budget=Linf(0.1), steps=5, step_size=0.05)
    return attack


@ATTACKS.register(
    "universal",
    example=_example,
    paper="Zhou et al. 2020, section 5.2; universal perturbations: Moosavi-Dezfooli et al. 2017",
    access="gradient",
    differs="steps look at pictures clipped to [0, 1]; the perturbation is clipped to the range of the pictures that "
    "it is learnt from, not of unseen ones; keeps the best iterate unless keep='last'",
)
@recipe
def universal(*, budget: Budget, steps: int = 100, step_size: float = 2 / 255, **parts: Any) -> Attack:
    """Projected gradient ascent with one perturbation for all pictures.

    After every step the perturbation is clipped for each picture, so that it stays in the ball and the picture in [0, 1],
    and the mean of the clipped ones goes on. On pictures with much black and white that mean is far smaller than ε:
    `averaged=False` leaves it the whole ball, and is stronger. `AttackResult.perturbation` holds what was learnt: on an
    unseen picture it is applied as `(x + perturbation).clamp(0, 1)`. With `groups`, pictures of equal numbers share one.

    Args:
        budget: Linf or L2.
        steps: number of gradient steps.
        step_size: α in pixel units.
        parts: further fields of `Attack` (`averaged`, `restarts`, `keep`, ...).
    """
    parts = {"name": "universal", "shared": True, **parts}
    return Attack(budget=budget, update=Steepest(step_size=step_size), steps=steps, **parts)
