"""Two audits beside each other: what changed for the owner and for each threat, picture by picture. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embattle.errors import InputError
from embattle.records.difference import differences
from embattle.records.intervals import mean_figure
from embattle.records.store import LocalStore
from embattle.records.summary import build_summary, read_run

SCHEMA = "embattle.comparison/1"
Row = Mapping[str, Any]
# What two models differ in by nature, and how their runs were begun.
_OF_THE_MODEL = ("model.",)


def build_comparison(first: Path, second: Path, *, names: tuple[str, str] = ("A", "B")) -> dict[str, Any]:
    """Two audits beside each other, from their run folders.

    Where both attacked the same pictures of the same gallery, differences are taken picture by picture and averaged: their
    interval is much narrower than those of the two figures, and one that lies beyond 0 is a change.

    Args:
        first, second: run folders of audits, of the same or of different models; they may be unfinished.
        names: what the page calls them, such as ("before", "after").

    Returns:
        JSON values in the schema "embattle.comparison/1".

    Raises:
        InputError: no audit, a damaged file, or two audits without a threat and an ε in common.
    """
    runs = (first, second)
    settings = [_settings(run) for run in runs]
    summaries = [build_summary(run) for run in runs]
    for run, summary in zip(runs, summaries, strict=True):
        if not summary["threats"]:
            raise InputError(f"{run} is an audit without results; the same embattle audit command goes on")
    paired = settings[0].get("gallery") == settings[1].get("gallery")
    samples = [_samples(run) for run in runs] if paired else [{}, {}]
    threats = [_threat(a, b, *samples) for a, b in _common(*summaries)]
    if not threats:
        raise InputError(
            f"{first} and {second} have no threat in common; audit both with the same --only, or the same defaults"
        )
    return {
        "schema": SCHEMA, "names": list(names), "paired": paired,
        "runs": [_described(summary) for summary in summaries],
        "settings": [told for told in differences(*settings) if not told.startswith(_OF_THE_MODEL)],
        "clean": _clean(*summaries), "robustness": _robustness(*summaries), "threats": threats,
        "left_out": _left_out(*summaries), "complete": all(summary["complete"] for summary in summaries),
    }  # fmt: skip


def _settings(run: Path) -> dict[str, Any]:
    """The configuration of an audit; the parts of a hardening are audits, it is not one itself."""
    config, _ = read_run(run)
    settings: dict[str, Any] = config["config"]
    if "harden" in settings:
        raise InputError(f"{run} is a hardening; its audits are {run / 'before'} and {run / 'after'}")
    if "audit" not in settings or config.get("name", "audit") != "audit":
        raise InputError(f"{run} is no audit, but a run of {config.get('name')}; give the folders of two audits")
    return settings


def _described(summary: Row) -> dict[str, Any]:
    kept = ("subject", "environment", "config_hash", "created", "command", "embattle", "commit", "units", "complete")
    return {name: summary[name] for name in kept}


def _clean(first: Row, second: Row) -> dict[str, Any]:
    """Figures of the clean system; those of ranks are no means over pictures that could be paired."""
    both = [name for name in first["clean"] if name in second["clean"]]
    return {name: {"first": first["clean"][name], "second": second["clean"][name]} for name in both}


def _robustness(first: Row, second: Row) -> dict[str, Any] | None:
    """Both robustness scores of both runs with their parts, at every ε in common; None where a run is not about them."""
    scores = [summary["robustness"] for summary in (first, second) if "robustness" in summary]
    if len(scores) < 2:
        return None
    there = {point["eps"]: point for point in scores[1]["curve"]}
    return {
        "curve": [_scored(point, there[point["eps"]]) for point in scores[0]["curve"] if point["eps"] in there],
        "masked": [
            [str(check["check"]) for check in score.get("masking") or () if check["status"] == "FAIL"] for score in scores
        ],
    }  # fmt: skip


def _scored(first: Row, second: Row) -> dict[str, Any]:
    """A line for each score, and for each part as both scores have it."""
    lines = [
        {"name": name, "first": figure, "second": second["figures"][name]} for name, figure in first["figures"].items()
    ]
    for mine, theirs in zip(first["parts"], second["parts"], strict=True):
        for name in first["figures"]:
            shared = mine[name]["threat"] == mine["ers"]["threat"]
            if name == "ers" or not shared:
                part = mine["part"] if name == "ers" else f"{mine['part']}, as published"
                lines.append({"name": part, "first": mine[name]["score"], "second": theirs[name]["score"]})
    return {"eps": first["eps"], "lines": lines}


def _common(first: Row, second: Row) -> Iterator[tuple[Row, Row]]:
    there = {threat["threat"]: threat for threat in second["threats"]}
    for threat in first["threats"]:
        if threat["threat"] in there:
            yield threat, there[threat["threat"]]


def _left_out(first: Row, second: Row) -> list[str]:
    """Threats that only one of the runs has."""
    sets = [{threat["threat"] for threat in summary["threats"]} for summary in (first, second)]
    return sorted(sets[0] ^ sets[1])


Samples = Mapping[tuple[str, float], Mapping[str, Row]]


def _samples(run: Path) -> Samples:
    """The attacked pictures of a run by threat and ε, those on which the model broke included."""
    store = LocalStore(run)
    found: dict[tuple[str, float], dict[str, Row]] = {}
    for unit in sorted(store.done()):
        for row in store.rows(unit):
            if row.get("row") == "sample":
                found.setdefault((row["threat"], row["eps"]), {})[row["sample"]] = row
    return found


def _threat(first: Row, second: Row, before: Samples, after: Samples) -> dict[str, Any]:
    there = {point["eps"]: point for point in second["curve"]}
    described = ("threat", "title", "question", "direction", "metric", "metrics", "criterion")
    return {
        **{name: first[name] for name in described if name in first},
        "grades": [first["grade"], second["grade"]], "half_eps": [first["half_eps"], second["half_eps"]],
        "points": [
            _point(first, point, there[point["eps"]], before, after) for point in first["curve"] if point["eps"] in there
        ],
    }  # fmt: skip


def _point(threat: Row, first: Row, second: Row, before: Samples, after: Samples) -> dict[str, Any]:
    place = (threat["threat"], first["eps"])
    a, b = before.get(place, {}), after.get(place, {})
    pairs = [(a[sample], b[sample]) for sample in sorted(a.keys() & b.keys())]
    return {
        "eps": first["eps"],
        "figures": {
            name: {
                "first": figure, "second": second["figures"][name],
                "difference": _difference(name, figure, pairs) if pairs else None,
            }
            for name, figure in first["figures"].items()
            if name in second["figures"]
        },
        "cost": [first["cost"], second["cost"]],
    }  # fmt: skip


def _difference(name: str, figure: Row, pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    """The mean over pictures of what changed, second minus first.

    A picture on which one of the models broke has failed; where both did, nothing changed that could be measured.
    """
    changes, broken = [], 0
    for before, after in pairs:
        if (before["status"] == "non_finite") != (after["status"] == "non_finite"):
            broken += 1
            continue
        lost = before["status"] == "non_finite"
        old, new = (row["success"] if name == "success" else row["metrics"].get(name) for row in (before, after))
        changes.append(None if lost or old is None or new is None else float(new) - float(old))
    unit, better = figure["unit"], figure["higher_is_better"]
    return mean_figure(changes, unit=unit, higher_is_better=better, failed=broken).to_json()
