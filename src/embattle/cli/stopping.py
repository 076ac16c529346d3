"""What becomes of a run that is stopped: SIGTERM counts as Ctrl-C, and both leave a report of what is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from embattle.errors import EmbattleError, RunIncomplete

# What a shell reports of a program that SIGTERM ended: 128 + 15.
TERMINATED = 143


@contextmanager
def terminating() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM raises KeyboardInterrupt, so that whatever treats Ctrl-C treats it too; tells whether it came."""
    came = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    # Python lets only the main thread handle signals; whoever calls the command line from another one keeps theirs.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def reporting(write: Callable[[Path], object]) -> Iterator[Callable[[Path], None]]:
    """Inside, a run that is stopped gets a report of what is done, and the error names its folder.

    Args:
        write: builds the report of a run folder.

    Yields:
        A function to tell the folder to, once there is one.

    Raises:
        RunIncomplete: the run was stopped; the same command goes on.
    """
    begun: list[Path] = []
    try:
        yield begun.append
    except (RunIncomplete, KeyboardInterrupt) as stop:
        if not begun:
            raise
        why = str(stop) or "interrupted; what was finished is kept, and the same command goes on"
        raise RunIncomplete(f"{why}. Folder: {begun[0]}{_with_report(write, begun[0])}") from None


def _with_report(write: Callable[[Path], object], run: Path) -> str:
    try:
        write(run)
    except EmbattleError:  # nothing measured yet, or no space left; why the run stopped matters more
        return ""
    return ", with a report of what is done"
