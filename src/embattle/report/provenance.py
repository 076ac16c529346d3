"""Where the figures of a report come from: environment, command, versions, and how intervals were computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from embattle.report.figures import Record

_TITLES = {
    "embattle": "Embattle",
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "cpu": "Processor",
    "threads": "Threads",
}


def provenance_rows(summary: Record) -> list[tuple[str, str]]:
    """Name and value of everything needed to run the same again, in reading order.

    Args:
        summary: the content of `summary.json`.
    """
    subject = summary.get("subject") or {}
    rows: dict[str, Any] = {
        "Date": summary.get("created"),
        "Command": summary.get("command"),
        "Embattle": summary.get("embattle"),
        "Commit": summary.get("commit"),
        "Configuration hash": summary.get("config_hash"),
        "Model fingerprint": subject.get("fingerprint"),
        "Seed": seed(summary),
        "Units": _units(summary.get("units") or {}),
    }
    for key, value in (summary.get("environment") or {}).items():
        rows.setdefault(_TITLES.get(key, key.replace("_", " ").capitalize()), value)
    rows.pop("Created", None)
    return [(name, _text(value)) for name, value in rows.items() if value is not None]


def seed(summary: Record) -> Any:
    """The seed of the run: from the summary, its configuration or its environment, else from the attacks; or None."""
    for place in (summary, summary.get("config") or {}, summary.get("environment") or {}):
        if place.get("seed") is not None:
            return place["seed"]
    told = {
        _text(attack["seed"]) for threat in summary.get("threats", ()) if "seed" in (attack := threat.get("attack") or {})
    }
    return ", ".join(sorted(told)) or None


def interval_methods(summary: Record) -> list[str]:
    """The methods named by the figures of the summary, each once, sorted."""
    figures = list((summary.get("clean") or {}).values())
    for threat in summary.get("threats", ()):
        for point in threat.get("curve", ()):
            figures.extend(point["figures"].values())
    for point in (summary.get("robustness") or {}).get("curve", ()):
        figures.extend(point["figures"].values())
    return sorted({str(figure["method"]) for figure in figures if figure.get("method")})


def _units(units: Mapping[str, Any]) -> str | None:
    if "done" not in units:
        return None
    failed = units.get("quarantined") or 0
    return f"{units['done']} done" + (f", {failed} stopped with an error" if failed else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
