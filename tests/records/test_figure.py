from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embattle.errors import InputError
from embattle.records import Figure

GOOD: dict[str, Any] = {
    "value": 3.04, "unit": "%", "n": 200, "undefined": 0, "failed": 0, "ci": (2.1, 4.2), "method": "mean",
    "higher_is_better": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "3.0 % [2.1, 4.2] (n=200)"),
        ({"ci": None}, "3.0 % (n=200)"),
        ({"undefined": 3, "failed": 2}, "3.0 % [2.1, 4.2] (n=200, 3 undefined, 2 failed)"),
        ({"unit": "share", "value": 0.95312, "ci": (0.871, 0.984)}, "0.953 [0.871, 0.984] (n=200)"),
        ({"unit": "px", "value": 12345.6, "ci": None}, "1.23e+04 px (n=200)"),
        ({"value": None, "n": 0, "ci": None, "undefined": 7}, "undefined (n=0, 7 undefined)"),
    ],
)
def test_text_shows_value_interval_and_counts(change: dict[str, Any], text: str) -> None:
    assert str(Figure(**{**GOOD, **change})) == text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n": -1}, "n=-1"),
        ({"undefined": -2}, "undefined=-2"),
        ({"failed": -3}, "failed=-3"),
        ({"n": True}, "type int"),
        ({"n": 2.0}, "type int"),
        ({"unit": None}, "type str"),
        ({"higher_is_better": 1}, "type bool"),
        ({"value": math.nan}, "must be finite"),
        ({"value": math.inf}, "must be finite"),
        ({"value": "3"}, "finite number"),
        ({"value": True}, "finite number"),
        ({"ci": (4.2, 2.1)}, "lower end comes first"),
        ({"ci": (math.nan, 2.1)}, "must be finite"),
        ({"ci": (1.0,)}, "(low, high)"),
        ({"value": None}, "value=None and n=0"),
        ({"n": 0}, "value=None and n=0"),
        ({"value": None, "n": 0}, "ci=None"),
    ],
)
def test_impossible_figures_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Figure(**{**GOOD, **change})
    assert says in str(caught.value)


finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**9)


@given(finite, st.text(), st.integers(1, 10**9), counts, counts, st.none() | st.tuples(finite, finite), st.booleans())
def test_json_and_back_is_the_same_figure(
    value: float, unit: str, n: int, undefined: int, failed: int, ci: tuple[float, float] | None, better: bool
) -> None:
    figure = Figure(
        value=value, unit=unit, n=n, undefined=undefined, failed=failed, ci=None if ci is None else (min(ci), max(ci)),
        method="m", higher_is_better=better,
    )  # fmt: skip
    assert Figure.from_json(json.loads(json.dumps(figure.to_json()))) == figure


def test_numpy_numbers_become_plain_ones() -> None:
    figure = Figure(**{**GOOD, "value": np.float32(0.5), "ci": (np.float64(0.25), np.float64(1.0))})
    assert type(figure.value) is float
    assert json.dumps(figure.to_json()["ci"]) == "[0.25, 1.0]"


@pytest.mark.parametrize(
    "data",
    [
        {}, [], None, {**GOOD, "colour": 1}, {key: GOOD[key] for key in GOOD if key != "n"}, {**GOOD, "ci": "ab"},
        {**GOOD, "ci": 3}, {**GOOD, "ci": [1, 2, 3]},
    ],
)  # fmt: skip
def test_json_that_is_no_figure_is_refused(data: Any) -> None:
    with pytest.raises(InputError):
        Figure.from_json(data)
