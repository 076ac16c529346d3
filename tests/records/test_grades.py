from __future__ import annotations

import math
from typing import Any

import pytest

from embattle.errors import InputError
from embattle.records import grade, half_eps


@pytest.mark.parametrize(
    ("eps", "letter"),
    [
        (None, "A"), (1.0, "B"), (0.1000001, "B"), (0.1, "C"), (0.0300001, "C"), (0.03, "D"), (0.0100001, "D"),
        (0.01, "F"), (1e-9, "F"),
    ],
)  # fmt: skip
def test_grade_by_the_smallest_eps(eps: float | None, letter: str) -> None:
    assert grade(eps) == letter


@pytest.mark.parametrize("eps", [0.0, -0.1, math.nan, math.inf])
def test_grade_of_an_impossible_eps_is_refused(eps: float) -> None:
    with pytest.raises(InputError, match="above 0"):
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
