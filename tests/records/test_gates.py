from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embattle.errors import ConfigError, InputError
from embattle.records import parse_gate


def figure(value: float | None, unit: str = "%") -> dict[str, Any]:
    return {
        "value": value, "unit": unit, "n": 10 if value is not None else 0, "undefined": 0 if value is not None else 10,
        "failed": 0, "ci": None if value is None else [value - 1, value + 1], "method": "", "higher_is_better": True,
    }  # fmt: skip


def threat(name: str, curve: dict[float, tuple[float | None, float | None]]) -> dict[str, Any]:
    points = [
        {"eps": eps, "figures": {"rank": figure(rank), "success": figure(share, "share")}}
        for eps, (rank, share) in curve.items()
    ]
    return {"threat": name, "metric": "rank", "curve": points}


SUMMARY: dict[str, Any] = {
    "clean": {"recall@1": figure(0.96, "share"), "map@r": figure(0.8, "share"), "empty": figure(None)},
    "threats": [
        threat("ca+.w1", {0.0: (50.0, 0.0), 0.01: (48.0, 0.1), 8 / 255: (45.0, 0.2), 0.1: (41.0, None)}),
        threat("clean-only", {0.0: (50.0, 0.0)}),
    ],
}


@pytest.mark.parametrize(
    ("text", "measured", "passed"),
    [
        ("ca+.w1@0.01 > 40", 48.0, True),
        ("ca+.w1@0.01 > 48", 48.0, False),
        ("ca+.w1@0.01 >= 48", 48.0, True),
        ("ca+.w1@0.01 < 48", 48.0, False),
        ("ca+.w1@0.01 <= 48", 48.0, True),
        ("ca+.w1@1e-2>40", 48.0, True),
        ("ca+.w1@8/255 > 40", 45.0, True),
        ("  ca+.w1.rank@0.01   >  +4.0e1 ", 48.0, True),
        ("ca+.w1.success@0.01 <= .1", 0.1, True),
        ("ca+.w1@0 >= 50", 50.0, True),
        ("ca+.w1 > 40", 41.0, True),  # worst of the tested ε above 0
        ("ca+.w1 > 42", 41.0, False),
        ("ca+.w1 < 48", 48.0, False),
        ("recall@1 >= 0.95", 0.96, True),  # its @1 is part of the name
        ("recall@1 > 0.96", 0.96, False),
        ("map@r>-1", 0.8, True),
    ],
)
def test_gates_hold_or_not(text: str, measured: float, passed: bool) -> None:
    result = parse_gate(text).check(SUMMARY)
    assert (result.measured, result.passed) == (measured, passed)
    assert result.ci == (measured - 1, measured + 1)
    assert result.to_json()["expression"] == text
    assert "the gate asks for" in result.why


@pytest.mark.parametrize("text", ["empty > 0", "empty < 0", "ca+.w1.success@0.1 <= 1", "ca+.w1.success <= 1"])
def test_a_gate_on_an_undefined_figure_fails(text: str) -> None:
    result = parse_gate(text).check(SUMMARY)
    assert (result.measured, result.ci, result.passed) == (None, None, False)
    assert "holds no gate" in result.why


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ca+.w2@0.03 > 40", "Did you mean ca+.w1"),
        ("recal@1 > 0.9", "Did you mean recall@1"),
        ("recall > 0.9", "Did you mean recall@1"),
        ("recall@5 > 0.9", "recall@1"),
        ("zzz > 1", "It has: ca+.w1, "),
        ("ca+.w1@0.02 > 40", "tested: 0, 0.01, 0.0313725, 0.1"),
        ("ca+.w1@8/0 > 40", "no figure"),
        ("clean-only > 1", "not tested at any"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_gate(text).check(SUMMARY)
    assert says in str(caught.value)


HOSTILE = [
    "", " ", ">", "ca+.w1", "ca+.w1 >", "> 40", "ca+.w1 = 40", "ca+.w1 == 40", "ca+.w1 != 40", "ca+.w1 => 40",
    "ca+.w1 >> 40", "ca+.w1 > 40 > 30", "ca+.w1 > 40%", "ca+.w1 > nan", "ca+.w1 > inf", "ca+.w1 > 1e999",
    "ca+.w1 > 1_000", "ca+.w1 > ٤", "ca+.w1 > 0x10", "ca+.w1 > __import__('os')", "a b > 1", "$(rm -rf) > 1",
    "<script> > 1", "ca+.w1 > 4\n0", "ca+.w1\0 > 1", "a" * 300 + " > 1", "1" * 10_000, "ca+.w1 > " + "1" * 500,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_gate_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write NAME\[@EPS\] OP NUMBER"):
        parse_gate(text)


@given(st.text(max_size=250))
def test_any_text_is_a_gate_or_a_sentence(text: str) -> None:
    try:
        gate = parse_gate(text)
    except ConfigError:
        return
    known = {"ca+.w1", "recall@1", "map@r"}
    assert gate.expression == text
    if gate.target not in known:
        with pytest.raises(ConfigError, match="this run has no figure"):
            gate.check(SUMMARY)


@given(
    st.sampled_from(["ca+.w1", "recall@1", "x-y_z.w5"]), st.sampled_from([">", ">=", "<", "<="]), st.floats(-1e9, 1e9),
    st.sampled_from(["", " ", "  "]),
)  # fmt: skip
def test_written_gates_are_read_back(name: str, op: str, number: float, space: str) -> None:
    gate = parse_gate(f"{name}{space}{op}{space}{number!r}")
    assert (gate.target, gate.op, gate.number) == (name, op, number)


def test_hostile_text_takes_no_time() -> None:
    start = time.perf_counter()
    for text in ["a" * 199 + ">", "<" * 200, "1" * 190 + ">" + "." * 9, "@" * 190 + ">1"]:
        with pytest.raises(ConfigError):
            parse_gate(text).check(SUMMARY)
    assert time.perf_counter() - start < 1


def test_a_summary_without_the_headline_figure_is_a_sentence() -> None:
    broken = {"clean": {}, "threats": [{**threat("ca+.w1", {0.1: (1.0, 1.0)}), "metric": "median"}]}
    with pytest.raises(InputError, match="no figure 'median'"):
        parse_gate("ca+.w1 > 1").check(broken)
