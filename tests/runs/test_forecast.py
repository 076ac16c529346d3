"""The forecast: seconds per weight of each kind as measured, and nothing said before enough is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from embattle.records import LocalStore, Unit
from embattle.runs import Output, Task, execute
from embattle.runs.forecast import Forecast


def task(kind: str, number: int, weight: float) -> Task:
    unit = Unit(kind=kind, params={"number": number}, samples=(), needs=())
    return Task(unit=unit, work=lambda tick: Output(rows=[]), title=kind, weight=weight)


def test_kinds_are_measured_apart() -> None:
    slow = [task("train", n, 1) for n in range(2)]
    quick = [task("attack", n, 100) for n in range(4)]
    forecast = Forecast([*slow, *quick])
    forecast.finished(slow[0], 50.0)
    assert forecast.left(slow[1], 0.0, 0.0) is None, "attacks have not been measured"
    forecast.finished(quick[0], 2.0)
    assert forecast.left(slow[1], 0.0, 0.0) == pytest.approx(50 + 3 * 2)
    forecast.finished(slow[1], 70.0)
    assert forecast.left(quick[1], 0.0, 0.0) == pytest.approx(3 * 2)
    assert forecast.left(quick[1], 0.5, 4.0) == pytest.approx((2 + 4) / 150 * 250)


def test_little_work_says_nothing() -> None:
    tasks = [task("attack", n, 1) for n in range(100)]
    forecast = Forecast(tasks)
    for done in range(100):
        left = forecast.left(tasks[done], 0.0, 0.0)
        assert left is None if done < 5 else left == pytest.approx(3.0 * (100 - done)), done
        forecast.finished(tasks[done], 3.0)


def test_units_without_a_cost_are_done_but_teach_nothing() -> None:
    tasks = [task("attack", n, 1) for n in range(3)]
    forecast = Forecast(tasks)
    forecast.finished(tasks[0], None)
    assert forecast.left(tasks[1], 0.0, 0.0) is None
    assert forecast.left(tasks[1], 0.5, 2.0) == pytest.approx(4.0 * 1.5)


def test_a_resumed_run_knows_what_its_units_have_taken(tmp_path: Path) -> None:
    tasks = [task("attack", n, 1) for n in range(4)]
    store = LocalStore(tmp_path)
    for done in tasks[:2]:
        store.put(done.unit, [], {}, {"seconds": 30.0})
    told: list[float | None] = []
    execute(tasks, store, lambda title, done, total, left: told.append(left))
    assert told[0] == pytest.approx(60.0)
    assert told[1] == pytest.approx(20.0, abs=0.1)
    assert told[-1] == 0.0
