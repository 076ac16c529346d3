"""How long the rest of a run takes, from the seconds that units of the same kind have taken."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embattle.runs.engine import Task

# Guessed weights compare two kinds of work badly, and a kind is judged by its first units worse than by nothing.
_ENOUGH = 0.05


class Forecast:
    """Learns seconds per weight, kind by kind.

    >>> from embattle.records import Unit
    >>> from embattle.runs import Output, Task
    >>> work = lambda tick: Output(rows=[])
    >>> units = [Unit(kind="embed", params={"n": n}, samples=(), needs=()) for n in range(3)]
    >>> first, second, third = [Task(unit=unit, work=work, title="", weight=2.0) for unit in units]
    >>> forecast = Forecast([first, second, third])
    >>> forecast.left(first, 0.0, 0.0)
    >>> forecast.finished(first, 10.0)
    >>> forecast.left(second, 0.5, 5.0)
    15.0
    """

    def __init__(self, tasks: list[Task]) -> None:
        self._whole: dict[str, float] = defaultdict(float)
        for task in tasks:
            self._whole[task.unit.kind] += task.weight
        self._open = dict(self._whole)
        self._measured: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)

    def finished(self, task: Task, seconds: float | None) -> None:
        """A unit is done; None where nobody knows how long it took."""
        self._open[task.unit.kind] -= task.weight
        if seconds is not None:
            self._measured[task.unit.kind] += task.weight
            self._seconds[task.unit.kind] += seconds

    def left(self, task: Task, share: float, spent: float) -> float | None:
        """Seconds until the run is done.

        Args:
            task: the unit at work.
            share: how much of it is done, 0 to 1.
            spent: seconds it has taken so far.

        Returns:
            None while less than 5 % of the work of some kind has been measured.
        """
        seconds = 0.0
        for kind, weight in self._open.items():
            at_work = share * task.weight if kind == task.unit.kind else 0.0
            measured = self._measured[kind] + at_work
            if weight - at_work <= 1e-9 * self._whole[kind]:
                continue
            if measured < _ENOUGH * self._whole[kind] or measured == 0:
                return None
            taken = self._seconds[kind] + (spent if at_work else 0.0)
            seconds += taken / measured * (weight - at_work)
        return seconds
