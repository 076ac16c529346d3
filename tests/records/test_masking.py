"""The verdicts of the five gradient checks, from rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from embattle.records import judge

NAMES = (
    "more ε is never weaker", "ε = 1 wins at least 95 %", "black box never beats white box",
    "more steps are never weaker", "the loss is not flat",
)  # fmt: skip


def cell(role: str, eps: float, steps: int, losses: list[float | None], **more: Any) -> list[dict[str, Any]]:
    given = {"success": True, "live": None if role == "black" else 1.0, **more}
    return [
        {"row": "masking", "role": role, "eps": eps, "steps": steps, "sample": f"s{i}", "loss": loss, **given}
        for i, loss in enumerate(losses)
    ]


def spread(mean: float, count: int = 16) -> list[float | None]:
    return [mean * (1 + 0.02 * (i % 5 - 2)) for i in range(count)]


def rows(**change: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A model that behaves, and cells exchanged for others."""
    cells = {
        "quarter": cell("white", 0.075, 32, spread(0.3)), "half": cell("white", 0.15, 32, spread(0.8)),
        "whole": cell("white", 0.3, 32, spread(1.2)), "one": cell("white", 1.0, 32, spread(1.4)),
        "few": cell("white", 0.3, 8, spread(1.0)), "many": cell("white", 0.3, 64, spread(1.25)),
        "black": cell("black", 0.3, 96, spread(0.4)),
    }  # fmt: skip
    return [row for each in {**cells, **change}.values() for row in each]


def statuses(given: list[dict[str, Any]]) -> dict[str, str]:
    return {check["check"]: check["status"] for check in judge(given)}


def test_a_model_that_behaves_passes_every_check() -> None:
    checks = judge(rows())
    assert [check["check"] for check in checks] == list(NAMES)
    assert {check["status"] for check in checks} == {"ok"}
    assert not any(check["advice"] for check in checks)
    gains = {name: each["value"] for check in checks for name, each in check["figures"].items()}
    assert gains["ε 0.075 to 0.15"] == pytest.approx(0.5, abs=0.01)
    assert gains["8 to 32 steps"] == pytest.approx(0.2, abs=0.01)
    assert gains["difference"] == pytest.approx(0.8, abs=0.01)
    assert gains["success"] == 1.0
    assert gains["live"] == 1.0


@pytest.mark.parametrize(
    ("name", "change", "status"),
    [
        (NAMES[0], {"whole": cell("white", 0.3, 32, spread(0.6))}, "FAIL"),
        (NAMES[0], {"one": cell("white", 1.0, 32, spread(1.19))}, "ok"),
        (NAMES[0], {"one": cell("white", 1.0, 32, spread(1.0))}, "FAIL"),
        (NAMES[1], {"one": cell("white", 1.0, 32, spread(1.4), success=False)}, "FAIL"),
        (NAMES[2], {"black": cell("black", 0.3, 96, spread(1.19))}, "ok"),
        (NAMES[2], {"black": cell("black", 0.3, 96, spread(1.4))}, "FAIL"),
        (NAMES[3], {"many": cell("white", 0.3, 64, spread(1.1))}, "FAIL"),
        (NAMES[3], {"few": cell("white", 0.3, 8, spread(1.3))}, "FAIL"),
        (NAMES[4], {"whole": cell("white", 0.3, 32, spread(1.2), live=0.4)}, "FAIL"),
        (NAMES[4], {"whole": cell("white", 0.3, 32, spread(1.2), live=0.7)}, "warn"),
        (NAMES[4], {"whole": cell("white", 0.3, 32, spread(1.2), live=0.9)}, "ok"),
    ],
)
def test_each_check_sees_what_it_is_there_for(name: str, change: dict[str, Any], status: str) -> None:
    found = statuses(rows(**change))
    assert found[name] == status
    (check,) = (check for check in judge(rows(**change)) if check["check"] == name)
    assert bool(check["advice"]) == (status != "ok")


def test_a_difference_that_the_interval_does_not_settle_is_a_warning() -> None:
    """Worse on average, on few of the pictures: the interval of the mean reaches above 0."""
    losses = [value if i else 0.1 for i, value in enumerate(spread(1.2))]
    assert statuses(rows(whole=cell("white", 0.3, 32, losses), many=[], few=cell("white", 0.3, 8, spread(1.2))))[
        NAMES[3]
    ] == ("warn")


@pytest.mark.parametrize(("won", "status"), [(16, "ok"), (15, "warn"), (14, "warn"), (12, "FAIL"), (0, "FAIL")])
def test_winning_everywhere_is_judged_by_its_interval(won: int, status: str) -> None:
    one = cell("white", 1.0, 32, spread(1.4))
    for i, row in enumerate(one):
        row["success"] = i < won
    assert statuses(rows(one=one))[NAMES[1]] == status


def test_where_nothing_moves_nothing_is_fine() -> None:
    still = {
        name: cell("white", eps, steps, [0.0] * 16, success=False, live=0.0)
        for name, eps, steps in (
            ("quarter", 0.075, 32), ("half", 0.15, 32), ("whole", 0.3, 32), ("one", 1.0, 32), ("few", 0.3, 8),
            ("many", 0.3, 64),
        )
    }  # fmt: skip
    assert statuses(rows(**still)) == dict(zip(NAMES, ("warn", "FAIL", "FAIL", "warn", "FAIL"), strict=True))


def test_pictures_are_compared_with_themselves() -> None:
    """A picture that broke the model in one attack is left out of the pair, not of the other pictures'."""
    losses = spread(1.4)
    losses[0] = None
    checks = {check["check"]: check for check in judge(rows(one=cell("white", 1.0, 32, losses)))}
    counts = {name: figure["n"] for name, figure in checks[NAMES[0]]["figures"].items()}
    assert counts == {"ε 0.075 to 0.15": 16, "ε 0.15 to 0.3": 16, "ε 0.3 to 1": 15}
    assert checks[NAMES[1]]["figures"]["success"]["n"] == 15
    assert checks[NAMES[1]]["status"] == "warn"
    assert "1 of 16 pictures gave NaN or infinity" in checks[NAMES[1]]["finding"]


@pytest.mark.parametrize("broken", [16, 15, 8])
def test_a_model_that_breaks_under_attack_passes_nothing(broken: int) -> None:
    """Every white-box attack turns so many pictures to NaN; guessing does not."""
    nans: list[float | None] = [None] * broken
    cells = {
        name: cell("white", eps, steps, nans + spread(loss, 16 - broken))
        for name, eps, steps, loss in (
            ("quarter", 0.075, 32, 0.3), ("half", 0.15, 32, 0.8), ("whole", 0.3, 32, 1.2), ("one", 1.0, 32, 1.4),
            ("few", 0.3, 8, 1.0), ("many", 0.3, 64, 1.25),
        )
    }  # fmt: skip
    checks = {check["check"]: check for check in judge(rows(**cells))}
    assert list(checks) == list(NAMES)
    assert [check["status"] for check in checks.values()][:4] == ["FAIL"] * 4
    for name in NAMES[:4]:
        assert f"{broken} of 16 pictures gave NaN or infinity" in checks[name]["finding"]
        assert "overflows or divides by zero" in checks[name]["advice"]


def test_an_unfinished_run_is_judged_by_what_is_there() -> None:
    assert judge([]) == []
    found = statuses(rows(one=[], black=[], many=[], few=[]))
    assert found == {NAMES[0]: "ok", NAMES[4]: "ok"}
    assert statuses(cell("black", 0.3, 96, spread(0.4))) == {}
