"""School grades of a threat: the smaller the perturbation that succeeds half of the time, the worse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from embattle.errors import InputError

GRADES = ("A", "B", "C", "D", "F")
_LARGER_THAN = ((0.1, "B"), (0.03, "C"), (0.01, "D"))


def grade(half_eps: float | None) -> str:
    """The grade of a threat by the smallest tested ε at which at least half of the attacks succeed.

    Args:
        half_eps: that ε, in pixel units of [0, 1], above 0; None when no tested ε was enough.

    Returns:
        "A" none was enough, "B" above 0.1, "C" above 0.03, "D" above 0.01, "F" 0.01 or less.

    Raises:
        InputError: an ε that is not a finite number above 0.

    >>> [grade(eps) for eps in (None, 0.2, 0.1, 0.03, 0.01)]
    ['A', 'B', 'C', 'D', 'F']
    """
    if half_eps is None:
        return "A"
    if not math.isfinite(half_eps) or half_eps <= 0:
        raise InputError(f"grade of ε {half_eps}: ε is a finite number above 0, or None when no tested ε was enough.")
    return next((letter for limit, letter in _LARGER_THAN if half_eps > limit), "F")


def half_eps(curve: Iterable[Mapping[str, Any]]) -> float | None:
    """The smallest tested ε above 0 at which the share of successes is 0.5 or more.

    Args:
        curve: points of a summary: {"eps": ..., "figures": {"success": {"value": ...}, ...}}, in any order.

    Returns:
        That ε in pixel units of [0, 1], or None.

    >>> point = lambda eps, share: {"eps": eps, "figures": {"success": {"value": share}}}
    >>> half_eps([point(0.0, 1.0), point(0.01, 0.2), point(0.03, 0.5), point(0.1, 1.0)])
    0.03
    """
    enough = [point["eps"] for point in tested(curve) if point["figures"]["success"]["value"] >= 0.5]
    return min(enough, default=None)


def tested(curve: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The points at ε > 0 whose share of successes is defined: without one there is nothing to grade."""
    return [
        point
        for point in curve
        if point["eps"] > 0 and point["figures"].get("success", {"value": None})["value"] is not None
    ]
