from __future__ import annotations

import math
from typing import Any

import pytest

from embattle.errors import InputError
from embattle.records import grade, grade_range, half_eps, withstood


@pytest.mark.parametrize(
    ("eps", "letter"),
    [
        (1.0, "A"), (0.3, "A"), (0.2999999, "B"), (0.1, "B"), (0.0999999, "C"), (0.03, "C"), (0.0299999, "D"),
        (0.01, "D"), (0.0099999, "F"), (0.0, "F"),
    ],
)  # fmt: skip
def test_grade_by_what_was_withstood(eps: float, letter: str) -> None:
    assert grade(eps) == letter


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_grade_of_an_impossible_eps_is_refused(eps: float) -> None:
    with pytest.raises(InputError, match="at least 0"):
        grade(eps)


def point(eps: float, share: float | None) -> dict[str, Any]:
    return {"eps": eps, "figures": {"success": {"value": share}}}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], None),
        ([point(0.0, 1.0)], None),  # the goal holding without an attack is no attack
        ([point(0.1, 0.499)], None),
        ([point(0.1, 0.5)], 0.1),
        ([point(0.1, 0.9), point(0.01, 0.5), point(0.03, 0.2)], 0.01),  # not sorted, not monotone
        ([point(0.01, None), point(0.03, 0.7)], 0.03),
        ([{"eps": 0.1, "figures": {}}], None),
    ],
)
def test_half_eps_is_the_smallest_tested_eps_with_half_success(points: list[Any], expected: float | None) -> None:
    assert half_eps(points) == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 0.0),
        ([point(0.3, 0.4)], 0.3),  # withstood the largest tested one
        ([point(0.3, 0.6)], 0.0),  # smaller ones were not tested: nothing to be credited with
        ([point(0.1, 0.1), point(0.01, 0.2), point(0.03, 0.5)], 0.01),
        ([point(0.01, 0.9), point(0.03, 0.1)], 0.0),
    ],
)
def test_only_what_was_tested_is_credited(points: list[Any], expected: float) -> None:
    assert withstood(points) == expected


def test_a_model_that_breaks_is_not_graded_better_for_it() -> None:
    broken = {"eps": 0.1, "figures": {"success": {"value": 0.0, "n": 3, "failed": 97}}}
    assert half_eps([broken]) == 0.1
    assert half_eps([{"eps": 0.1, "figures": {"success": {"value": 0.0, "n": 97, "failed": 3}}}]) is None


def within(eps: float, low: float, high: float, **counts: int) -> dict[str, Any]:
    return {"eps": eps, "figures": {"success": {"value": (low + high) / 2, "ci": [low, high], **counts}}}


def test_the_range_of_grades_is_that_of_the_ends_of_the_intervals() -> None:
    curve = [within(0.01, 0.0, 0.4), within(0.03, 0.2, 0.55), within(0.1, 0.4, 0.7), within(0.3, 0.6, 0.9)]
    assert grade_range(curve) == grade_range(curve[::-1]) == ("B", "D")
    assert grade_range([within(0.3, 0.0, 0.04)]) == ("A", "A")
    assert grade_range([within(0.01, 0.0, 0.6)]) == ("D", "F")
    assert grade_range([point(0.3, 0.1), point(0.1, 0.1)]) == ("A", "A")  # no interval: the value counts
    assert grade_range([point(0.1, None), point(0.0, 1.0)]) is None


def test_broken_outputs_count_as_successes_at_both_ends() -> None:
    assert grade_range([within(0.3, 0.0, 0.1, n=3, failed=97)]) == ("F", "F")


def test_few_attempts_leave_a_range_and_many_do_not() -> None:
    """Wilson's interval of 1 in 4 holds a half, that of 20 in 100 does not."""
    from embattle.records import rate_figure

    for successes, n, expected in ((1, 4, ("A", "F")), (20, 100, ("A", "A"))):
        figure = rate_figure([i < successes for i in range(n)], higher_is_better=False).to_json()
        assert grade_range([{"eps": 0.3, "figures": {"success": figure}}]) == expected
