"""How a run is followed on stderr: a bar with a forecast in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from embattle.runs import Progress

# A log gets a line for every tenth of the work, and a sign of life in between.
_LINES, _SECONDS = 10, 60.0


@contextmanager
def follow() -> Iterator[Progress]:
    """What a run tells of its progress, shown on stderr until the block ends."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines(sys.stderr)
        return
    with _bar(console) as show:
        yield show


class PlainLines:
    """One line, without control characters, at every tenth of the work or once a minute.

    Args:
        stream: where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = self._told = time.monotonic()
        self._line = -1

    def __call__(self, title: str, done: float, total: float, left: float | None = None, /) -> None:
        """See `embattle.runs.Progress`."""
        share, now = done / total if total else 1.0, time.monotonic()
        line = int(_LINES * share + 1e-9)
        if line == self._line and now - self._told < _SECONDS and done < total:
            return
        self._line, self._told = line, now
        forecast = f", {_clock(left)} left" if left else ""
        print(f"{100 * share:3.0f} %  {_clock(now - self._started)}{forecast}  {title}", file=self._stream, flush=True)


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.progress import Task as Row
    from rich.text import Text

    deadline: float | None = None

    class Left(ProgressColumn):
        """Counts down between two forecasts."""

        def render(self, task: Row) -> Text:
            return Text("" if deadline is None else f"{_clock(max(deadline - time.monotonic(), 0.0))} left")

    columns = (
        TextColumn("{task.description:<32}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), Left(),
    )  # fmt: skip
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("loading", total=None)

        def show(title: str, done: float, total: float, left: float | None = None, /) -> None:
            nonlocal deadline
            deadline = None if left is None else time.monotonic() + left
            bar.update(task, description=title, completed=done, total=total)

        try:
            yield show
        except Exception:
            # What went wrong is said in a sentence; an unfinished bar above it would only distract.
            bar.update(task, visible=False)
            raise


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock(83.7)
    '0:01:23'
    """
    return str(timedelta(seconds=int(seconds)))
