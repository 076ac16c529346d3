"""Condenses a run's summary into a result file fit to be committed: figures and provenance, no pictures, no paths.

Use: ``python benchmarks/condense.py runs/RUN results/NAME.json "what the run shows"``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from embattle.records import load_summary, write_json_atomic

_KEPT = ("created", "embattle", "commit", "python", "torch", "numpy", "platform", "cpu", "cores", "threads", "device")


def condensed(summary: dict[str, Any], title: str) -> dict[str, Any]:
    """Title, provenance, subject, clean figures, and every threat's curve.

    Raises:
        SystemExit: the run is not finished; half a run is no result.
    """
    if not summary["complete"]:
        raise SystemExit("the run is not finished; start its command again first")
    environment = summary["environment"]
    threats = [
        {key: threat[key] for key in ("threat", "criterion", "attack", "grade", "half_eps", "curve")}
        for threat in summary["threats"]
    ]
    return {
        "title": title, "command": summary["command"], "config_hash": summary["config_hash"],
        **{key: environment.get(key) for key in _KEPT}, "subject": summary["subject"], "clean": summary["clean"],
        "threats": threats, "notes": summary["notes"],
    }  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    write_json_atomic(Path(sys.argv[2]), condensed(load_summary(Path(sys.argv[1])), sys.argv[3]))
