"""Runs: folders found again by the hash of their configuration, and engines that finish their units one by one."""

from __future__ import annotations

from embattle.runs.engine import Output, Progress, Task, Tick, execute
from embattle.runs.environment import describe_environment, kind_of_device, numerics
from embattle.runs.folder import RunFolder, configuration_hash, open_run

__all__ = [
    "Output",
    "Progress",
    "RunFolder",
    "Task",
    "Tick",
    "configuration_hash",
    "describe_environment",
    "execute",
    "kind_of_device",
    "numerics",
    "open_run",
]
