"""The engine: every unit once, in order, kept the moment it is finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embattle.errors import ModelError, RunIncomplete
from embattle.records import LocalStore, Unit
from embattle.runs import Output, Task, Tick, execute


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def make(number: int, work: Callable[[Tick], Output] | None = None, needs: tuple[str, ...] = (), weight: float = 1) -> Task:
    unit = Unit(kind="embed", params={"number": number}, samples=(), needs=needs)
    return Task(unit=unit, work=work or (lambda tick: Output(rows=[{"x": number}])), title=f"task {number}", weight=weight)


def test_units_are_kept_with_rows_blobs_and_cost(store: LocalStore) -> None:
    task = make(1, lambda tick: Output(rows=[{"x": 1}], blobs={"a.png": b"pixels"}, cost={"samples": 3.0}))
    execute([task], store)
    assert list(store.rows(task.unit.id)) == [{"x": 1}]
    assert store.blob(task.unit.id, "a.png") == b"pixels"
    cost = store.cost(task.unit.id)
    assert cost["samples"] == 3.0
    assert cost["seconds"] >= 0
    assert cost["peak_rss_mib"] > 1


def test_finished_units_are_not_computed_again(store: LocalStore) -> None:
    calls = []

    def counted(number: int) -> Task:
        def work(tick: Tick) -> Output:
            calls.append(number)
            return Output(rows=[])

        return make(number, work)

    tasks = [counted(n) for n in range(4)]
    execute(tasks[:2], store)
    execute(tasks, store)
    execute(tasks, LocalStore(store.folder))
    assert calls == [0, 1, 2, 3]


def test_progress_runs_from_what_is_done_to_the_whole(store: LocalStore) -> None:
    def halves(tick: Tick) -> Output:
        for share in (0.5, 7.0, -1.0):  # beyond the ends is cut off
            tick(share)
        return Output(rows=[])

    tasks = [make(0, weight=2), make(1, halves, weight=4), make(2, weight=1)]
    execute(tasks[:1], store)
    seen: list[tuple[str, float, float]] = []
    execute(tasks, store, lambda title, done, total, left: seen.append((title, done, total)))
    assert seen == [
        ("task 1", 2, 7), ("task 1", 4, 7), ("task 1", 6, 7), ("task 1", 2, 7), ("task 2", 6, 7), ("done", 7, 7),
    ]  # fmt: skip


def test_a_unit_before_the_one_it_needs_is_our_bug(store: LocalStore) -> None:
    first = make(1)
    second = make(2, needs=(first.unit.id,))
    with pytest.raises(AssertionError, match="task 2"):
        execute([second, first], store)
    execute([first, second], store)
    assert store.done() == {first.unit.id, second.unit.id}


def failing(error: BaseException) -> Task:
    def work(tick: Tick) -> Output:
        raise error

    return make(1, work)


def test_an_interrupt_keeps_what_is_done(store: LocalStore) -> None:
    before = make(0)
    with pytest.raises(RunIncomplete, match=r"'task 1'.*same command goes on"):
        execute([before, failing(KeyboardInterrupt())], store)
    assert store.done() == {before.unit.id}
    assert store.quarantined() == {}


def test_a_sentence_travels_as_it_is(store: LocalStore) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        execute([failing(ModelError("the model cannot be used"))], store)
    assert store.quarantined() == {}


def test_a_bug_leaves_a_note_until_it_is_mended(store: LocalStore) -> None:
    task = failing(ZeroDivisionError("oh"))
    with pytest.raises(ZeroDivisionError):
        execute([task], store)
    assert store.quarantined() == {task.unit.id: "ZeroDivisionError: oh"}
    execute([make(1)], store)
    assert store.quarantined() == {}
