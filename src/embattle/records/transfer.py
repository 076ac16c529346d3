"""From the rows of a transfer to its matrices: what is crafted on one model and judged on another. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embattle.errors import InputError
from embattle.records.store import LocalStore
from embattle.records.summary import point, read_record, read_run, without_flags

SCHEMA = "embattle.transfer/1"
# What the models are called: kept beside the units, because it changes no number.
MODELS_FILE = "models.json"
# Begins the names under which a unit's cost has the seconds of the attack that a model was judged by.
ATTACK_SECONDS = "attack_seconds:"
Row = Mapping[str, Any]
Place = tuple[str, float, str | None, str]
_CHOICES = ("--only", "--out")
# What the record and the report read of each kind of row.
_FIELDS = {
    "model": ("fingerprint", "clean"),
    "threat": ("threat", "metric", "metrics"),
    "sample": ("threat", "eps", "source", "target", "attack", "status", "success", "metrics", "cost"),
    "finding": ("threat", "eps", "source", "target", "original", "adversarial", "difference", "lists"),
    "skipped": ("scenario", "reason"),
    "note": ("text",),
}


@dataclass
class _Rows:
    """The rows of a run, sorted by what they speak of; samples and seconds a picture by threat, ε, source and target."""

    models: dict[str, Row] = field(default_factory=dict)
    threats: dict[str, Row] = field(default_factory=dict)
    samples: dict[Place, list[Row]] = field(default_factory=dict)
    seconds: dict[Place, list[float]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=lambda: {"attacks": 0, "forwards": 0, "backwards": 0, "seconds": 0.0})


def build_transfer(run: Path) -> dict[str, Any]:
    """The record of a transfer from a run folder's config.json, env.json, models.json and finished units.

    Args:
        run: the run folder; it may be unfinished ("complete" is false then).

    Returns:
        JSON values in the schema "embattle.transfer/1". Every threat has one matrix for each ε: its cells name the model a
        picture was crafted on and the one it was judged on, "clean" has what untouched pictures get on each.

    Raises:
        InputError: no run folder of a transfer, or a damaged file in it.
    """
    config, environment = read_run(run)
    names = read_record(run / MODELS_FILE, {"models": dict})["models"]
    store = LocalStore(run)
    finished = store.done()
    plan = [unit for unit in config["plan"] if unit in finished]
    rows = _collect(store, plan)
    command = without_flags(environment["command"], _CHOICES)
    return {
        "schema": SCHEMA,
        "name": "transfer",
        **{name: environment.get(name) for name in ("created", "command", "embattle", "commit")},
        "environment": environment,
        "config_hash": config["hash"],
        "seed": (config["config"].get("transfer") or {}).get("seed"),
        "models": [{**rows.models[each], "name": name} for each, name in names.items() if each in rows.models],
        "threats": [_threat(rows, threat, names, command) for threat in rows.threats],
        "findings": [_named(finding, names) for finding in rows.findings],
        "skipped": rows.skipped,
        "notes": rows.notes,
        "cost": rows.cost,
        "units": {
            "planned": len(config["plan"]), "done": len(plan),
            "quarantined": len(set(store.quarantined()) & set(config["plan"])),
        },
        "complete": len(plan) == len(config["plan"]),
    }  # fmt: skip


def _collect(store: LocalStore, plan: Sequence[str]) -> _Rows:
    rows = _Rows()
    for unit in plan:
        attacks: dict[int, list[Row]] = {}
        of_unit: dict[Place, list[Row]] = {}
        for row in store.rows(unit):
            kind = _checked(row, unit)
            if kind != "sample":
                _file(rows, kind, row, unit)
                continue
            of_unit.setdefault((row["threat"], row["eps"], row["source"], row["target"]), []).append(row)
            # Models that were judged by the same attack paid for it once.
            attacks.setdefault(row["attack"], []).append({**row["cost"], "target": row["target"]})
        cost = store.cost(unit)
        rows.cost["seconds"] += cost.get("seconds", 0.0)
        for paid in attacks.values():
            _add(rows.cost, [row for row in paid if row["target"] == paid[0]["target"]])
        for place, samples in of_unit.items():
            rows.samples.setdefault(place, []).extend(samples)
            spent = cost.get(f"{ATTACK_SECONDS}{place[3]}")
            if spent is not None:
                rows.seconds.setdefault(place, []).extend([spent / len(samples)] * len(samples))
    return rows


def _add(total: dict[str, float], paid: Sequence[Row]) -> None:
    total["attacks"] += sum(row["forwards"] > 0 for row in paid)
    for name in ("forwards", "backwards"):
        total[name] += sum(row[name] for row in paid)


def _checked(row: Row, unit: str) -> str:
    kind = str(row.get("row"))
    missing = [name for name in _FIELDS.get(kind, ()) if name not in row]
    if kind not in _FIELDS or missing:
        what = f"a row of kind {kind!r}" + (f" without {', '.join(missing)}" if missing else "")
        raise InputError(
            f"unit {unit[:16]} has {what}; known kinds are {', '.join(_FIELDS)}. It was written by another version of "
            f"embattle: start the transfer again in a new folder."
        )
    return kind


def _file(rows: _Rows, kind: str, row: dict[str, Any], unit: str) -> None:
    content = {name: value for name, value in row.items() if name != "row"}
    if kind == "model":
        rows.models[row["fingerprint"]] = content
    elif kind == "threat":
        rows.threats[row["threat"]] = content
    elif kind == "finding":
        rows.findings.append({**content, "unit": unit})
    elif kind == "skipped":
        rows.skipped.append(content)
    else:
        rows.notes.append(row["text"])


def _threat(rows: _Rows, name: str, names: Mapping[str, str], command: str) -> dict[str, Any]:
    described = rows.threats[name]
    places = sorted((place for place in rows.samples if place[0] == name), key=lambda place: place[1])
    order = list(names)
    matrices = []
    for eps in dict.fromkeys(place[1] for place in places if place[2] is not None):
        here = [place for place in places if place[1] == eps and place[2] in names and place[3] in names]
        here.sort(key=lambda place: (order.index(str(place[2])), order.index(place[3])))
        matrices.append({"eps": eps, "cells": [_cell(rows, described, place, names) for place in here]})
    clean = [_cell(rows, described, place, names) for place in places if place[2] is None and place[3] in names]
    clean.sort(key=lambda cell: list(names.values()).index(cell["target"]))
    again = f"{command} {described['reproduce']}" if "reproduce" in described else None
    return {**described, "reproduce": again, "clean": clean, "matrices": matrices}


def _cell(rows: _Rows, described: Row, place: Place, names: Mapping[str, str]) -> dict[str, Any]:
    _, eps, source, target = place
    samples = rows.samples[place]
    measured = point(described, eps, samples, rows.seconds.get(place, []))
    models = {"source": None if source is None else names[source], "target": names[target], "white_box": source == target}
    return {**models, "figures": measured["figures"], "cost": measured["cost"]}


def _named(finding: Row, names: Mapping[str, str]) -> dict[str, Any]:
    models = {which: names.get(finding[which], finding[which][:8]) for which in ("source", "target")}
    return {**finding, **models}
