"""The history of a run beside its checkpoint: JSON lines always, TensorBoard scalars where they were asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embattle.errors import InputError, MissingDependency
from embattle.records.atomic import write_atomic


def history_path(out: Path) -> Path:
    """Where the history of the run that writes `out` lies: one JSON object per finished epoch."""
    return out.with_name(f"{out.stem}.history.jsonl")


def write_history(out: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Writes the whole history anew, so that a resumed run leaves no line of an epoch that was lost."""
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in history)
    write_atomic(history_path(out), text.encode())


def read_history(out: Path) -> list[dict[str, Any]]:
    """The rows that `write_history` wrote beside a checkpoint; none where that file is gone or damaged."""
    try:
        return [json.loads(line) for line in history_path(out).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


class Scalars:
    """Writes scalars for TensorBoard into a folder, or nothing where no folder was asked for.

    Args:
        folder: where the event files go; None: nowhere.

    Raises:
        MissingDependency: a folder was asked for and tensorboard is not installed.
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependency(
                "TensorBoard scalars were asked for, but tensorboard is not installed; "
                "write: pip install 'embattle[tensorboard]', or leave --tensorboard out"
            ) from error
        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise InputError(f"TensorBoard folder {folder} cannot be written: {error.strerror}") from error

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Writes one point per name at `epoch`."""
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Ends the event file."""
        if self._writer is not None:
            self._writer.close()
