"""What a run was made on: versions, machine, threads, commit. Kept beside the results, never part of their hash."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import embattle


def describe_environment(command: str, device: str = "cpu") -> dict[str, Any]:
    """The content of env.json.

    Args:
        command: the command line that started the run.
        device: what the model runs on.
    """
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "embattle": embattle.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def numerics(device: str = "cpu") -> dict[str, Any]:
    """What figures agree to the last digit under: one build of torch, one kind of device, one number of threads."""
    return {
        "threads": torch.get_num_threads(), "torch": str(torch.__version__), "embattle": embattle.__version__,
        "device": device,
    }  # fmt: skip


def kind_of_device(device: torch.device) -> str:
    """What a device is called in a run's identity: two cards of one model count as one, two models do not.

    >>> kind_of_device(torch.device("cpu"))
    'cpu'
    """
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _commit() -> str | None:
    """The commit of the checkout the package runs from, "+dirty" when files were changed; None when installed."""
    folder = Path(embattle.__file__).resolve().parent
    try:
        git = ["git", "-C", str(folder)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        if head.returncode != 0 or not _tracks(git, folder):
            return None
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+dirty" if changed.stdout.strip() else "")


def _tracks(git: list[str], folder: Path) -> bool:
    # A wheel inside somebody's repository would otherwise claim that repository's commit.
    found = subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, timeout=10)
    return found.returncode == 0


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
