"""Executes the units of a run in order, on this machine, and keeps each result the moment it is finished."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from embattle.errors import EmbattleError, RunIncomplete
from embattle.records import LocalStore, Unit
from embattle.runs.forecast import Forecast


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a unit's work gives: rows, the files they speak of, and costs that may differ from run to run."""

    rows: Sequence[Mapping[str, Any]]
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


Tick = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A unit with the work that computes it.

    Args:
        unit: what it is; done units are not computed again.
        work: called with a function to tell, from time to time, which share of the unit is done.
        title: what the progress bar says.
        weight: expected effort, in any unit common to the run.
    """

    unit: Unit
    work: Callable[[Tick], Output]
    title: str
    weight: float = 1.0


class Progress(Protocol):
    """Told what is being done, how much of the whole is finished, and how long the rest takes."""

    def __call__(self, title: str, done: float, total: float, left: float | None, /) -> None:
        """`done` of `total` weights are finished; `title` is what comes next; `left` seconds remain, None: not known."""
        ...


def execute(tasks: Sequence[Task], store: LocalStore, progress: Progress | None = None) -> None:
    """Computes every unit that is not in the store yet; each is kept whole or not at all.

    Args:
        tasks: in an order in which every unit comes after those it needs.
        store: where results are kept.
        progress: called before every unit, and once at the end.

    Raises:
        RunIncomplete: interrupted; the same call goes on.
        EmbattleError: from the work of a unit, as it is.
    """
    finished = set(store.done())
    forecast = Forecast(list(tasks))
    for task in tasks:
        if task.unit.id in finished:
            forecast.finished(task, store.cost(task.unit.id).get("seconds"))
    done = sum(task.weight for task in tasks if task.unit.id in finished)
    total = sum(task.weight for task in tasks)
    for task in tasks:
        if task.unit.id in finished:
            continue
        missing = [need for need in task.unit.needs if need not in finished]
        assert not missing, f"{task.title} comes before a unit that it needs"
        started = time.perf_counter()
        _compute(task, store, _ticker(progress, forecast, task, done, total))
        forecast.finished(task, time.perf_counter() - started)
        finished.add(task.unit.id)
        done += task.weight
    if progress is not None:
        progress("done", total, total, 0.0)


def _ticker(progress: Progress | None, forecast: Forecast, task: Task, done: float, total: float) -> Tick:
    started = time.perf_counter()

    def tick(share: float) -> None:
        if progress is not None:
            share = min(max(share, 0.0), 1.0)
            left = forecast.left(task, share, time.perf_counter() - started)
            progress(task.title, done + share * task.weight, total, left)

    tick(0.0)
    return tick


def _compute(task: Task, store: LocalStore, tick: Tick) -> None:
    started = time.perf_counter()
    try:
        output = task.work(tick)
        seconds = time.perf_counter() - started
        cost = {"seconds": seconds, "peak_rss_mib": _peak_rss_mib(), **output.cost}
        store.put(task.unit, output.rows, output.blobs, cost)
    except KeyboardInterrupt:
        raise RunIncomplete(
            f"interrupted during {task.title!r}; what was finished is kept, and the same command goes on"
        ) from None
    except EmbattleError:
        raise
    except Exception as error:
        # A bug of ours: leave a note beside the results before it travels on to the command line.
        store.quarantine(task.unit, f"{type(error).__name__}: {error}")
        raise


def _peak_rss_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
