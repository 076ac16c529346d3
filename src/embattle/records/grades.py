"""School grades of a threat, by the largest tested perturbation that it does not reach half of its attempts with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from embattle.errors import InputError

# A system is credited with what was tested and withstood, and with nothing between or beyond.
WITHSTOOD = ((0.3, "A"), (0.1, "B"), (0.03, "C"), (0.01, "D"), (0.0, "F"))
GRADES = tuple(letter for _, letter in WITHSTOOD)


def grade(withstood: float) -> str:
    """The grade of a threat by the largest tested ε below which it never succeeded half of the time.

    Args:
        withstood: that ε in pixel units of [0, 1]; 0 when already the smallest tested one was enough for the attacker.

    Returns:
        "A" for 0.3 and more, "B" for 0.1, "C" for 0.03, "D" for 0.01, else "F".

    Raises:
        InputError: an ε that is not a finite number of at least 0.

    >>> [grade(eps) for eps in (0.3, 0.1, 8 / 255, 0.01, 0.0)]
    ['A', 'B', 'C', 'D', 'F']
    """
    if not math.isfinite(withstood) or withstood < 0:
        raise InputError(f"grade of ε {withstood}: ε is a finite number of at least 0.")
    return next(letter for limit, letter in WITHSTOOD if withstood >= limit)


def withstood(curve: Iterable[Mapping[str, Any]]) -> float:
    """The largest tested ε below the first one at which the attacker succeeds half of the time; 0 without any.

    Args:
        curve: points of a summary, in any order.

    >>> point = lambda eps, share: {"eps": eps, "figures": {"success": {"value": share, "n": 10, "failed": 0}}}
    >>> withstood([point(0.01, 0.2), point(0.03, 0.5), point(0.1, 0.4)])
    0.01
    """
    return _withstood(tested(curve), _share)


def grade_range(curve: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """The best and the worst grade that the intervals of the shares of successes allow; None without anything to grade.

    Few attacked pictures leave wide intervals, and a letter alone would hide that.

    Args:
        curve: points of a summary, in any order; a figure without an interval counts with its value.

    >>> point = lambda eps, *ci: {"eps": eps, "figures": {"success": {"value": 0.5, "n": 4, "failed": 0, "ci": ci}}}
    >>> grade_range([point(0.01, 0.1, 0.4), point(0.03, 0.2, 0.8), point(0.1, 0.6, 1.0)])
    ('C', 'D')
    """
    points = tested(curve)
    if not points:
        return None
    best, worst = (grade(_withstood(points, _end(place))) for place in (0, 1))
    return best, worst


def _withstood(points: list[Mapping[str, Any]], share: Callable[[Mapping[str, Any]], float]) -> float:
    limit = _half(points, share)
    return max((point["eps"] for point in points if limit is None or point["eps"] < limit), default=0.0)


def half_eps(curve: Iterable[Mapping[str, Any]]) -> float | None:
    """The smallest tested ε above 0 at which the share of successes is 0.5 or more.

    Attempts that failed, because a model's output was not finite, count as successes here: a system is not to be graded
    better for breaking.

    Args:
        curve: points of a summary: {"eps": ..., "figures": {"success": {"value": ...}, ...}}, in any order.

    Returns:
        That ε in pixel units of [0, 1], or None.

    >>> point = lambda eps, share: {"eps": eps, "figures": {"success": {"value": share, "n": 10, "failed": 0}}}
    >>> half_eps([point(0.0, 1.0), point(0.01, 0.2), point(0.03, 0.5), point(0.1, 1.0)])
    0.03
    """
    return _half(tested(curve), _share)


def _half(points: list[Mapping[str, Any]], share: Callable[[Mapping[str, Any]], float]) -> float | None:
    enough = [point["eps"] for point in points if _worst(point["figures"]["success"], share) >= 0.5]
    return min(enough, default=None)


def _share(success: Mapping[str, Any]) -> float:
    return float(success["value"])


def _end(place: int) -> Callable[[Mapping[str, Any]], float]:
    """The lower (0) or upper (1) end of the interval."""
    return lambda success: float(success["ci"][place] if success.get("ci") else success["value"])


def _worst(success: Mapping[str, Any], share: Callable[[Mapping[str, Any]], float]) -> float:
    """The share of successes if every failed attempt had been one."""
    n, failed = int(success.get("n") or 0), int(success.get("failed") or 0)
    return (share(success) * n + failed) / (n + failed) if n + failed else share(success)


def tested(curve: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The points at ε > 0 whose share of successes is defined: without one there is nothing to grade."""
    return [
        point
        for point in curve
        if point["eps"] > 0 and point["figures"].get("success", {"value": None})["value"] is not None
    ]
