"""A published experiment beside ours: from the rows of a reproduction to cells with tolerance and verdict. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embattle.records.intervals import mean_figure
from embattle.records.store import LocalStore
from embattle.records.summary import read_run

SCHEMA = "embattle.reproduction/1"
Row = Mapping[str, Any]
Key = tuple[str, float, str]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A cell of a published table: its place, the paper's value (None: not printed), and what counts as the same.

    Args:
        column: the scenario's name.
        metric: which of the scenario's metrics it is.
        unit: of the value.
        rises: whether a stronger attack makes the value larger.
        width: targets of a picture.
        tolerance: difference that says nothing, in the value's unit; two deviations between seeds count if they are more.
        eps: ε; 0 is the clean system.
        value: the paper's.
    """

    column: str
    metric: str
    unit: str
    rises: bool
    width: int
    tolerance: float
    eps: float
    value: float | None


def build_reproduction(run: Path, published: Sequence[Published], described: Mapping[str, Any]) -> dict[str, Any]:
    """The content of result.json from a run folder's finished units and the paper's figures.

    Args:
        run: the run folder; it may be unfinished ("complete" is false then).
        published: the cells, in the order they are printed.
        described: what the result says of itself: protocol, title, paper, scale, seeds.

    Raises:
        InputError: no run folder, or a damaged file in it.
    """
    config, environment = read_run(run)
    store = LocalStore(run)
    finished = store.done()
    units = [unit for unit in config["plan"] if unit in finished]
    models: list[Row] = []
    samples: dict[Key, dict[int, list[Row]]] = {}
    seconds: dict[Key, list[float]] = {}
    for unit in units:
        rows = list(store.rows(unit))
        models += [row for row in rows if row["row"] == "model"]
        for row in (row for row in rows if row["row"] == "sample"):
            samples.setdefault(_key(row), {}).setdefault(row["seed"], []).append(row)
        if rows and rows[0]["row"] == "sample":
            seconds.setdefault(_key(rows[0]), []).append(store.cost(unit).get("seconds", math.nan) / len(rows))
    cells = [_cell(place, samples, seconds) for place in published]
    verdicts = [cell["verdict"] for cell in cells if cell["verdict"]]
    return {
        "schema": SCHEMA, **described, "environment": environment, "config_hash": config["hash"],
        "units": {"done": len(units), "planned": len(config["plan"])}, "complete": len(units) == len(config["plan"]),
        "models": [{"seed": row["seed"], "recall@1": row["recall"]} for row in models],
        "verdicts": {name: verdicts.count(name) for name in ("same", "stronger", "weaker")}, "cells": cells,
    }  # fmt: skip


def _key(row: Row) -> Key:
    return row["column"], row["eps"], row["role"]


def _cell(
    place: Published, samples: Mapping[Key, Mapping[int, Sequence[Row]]], seconds: Mapping[Key, Sequence[float]]
) -> dict[str, Any]:
    role = "paper" if place.eps else "clean"
    key = (place.column, place.eps, role)
    ours, by_seed = _figure(place, samples.get(key, {}), "metrics")
    adaptive, _ = _figure(place, samples.get((place.column, place.eps, "adaptive"), {}), "metrics")
    free, _ = _figure(place, samples.get((place.column, 0.0, "free"), {}), "metrics")
    eight_bit, _ = _figure(place, samples.get(key, {}), "eight_bit")
    deviation = statistics.stdev(by_seed.values()) if len(by_seed) > 1 else None
    tolerance = max(place.tolerance, 2 * (deviation or 0.0))
    difference = None if ours is None or place.value is None else ours["value"] - place.value
    return {
        "column": place.column, "metric": place.metric, "unit": place.unit, "rises": place.rises, "width": place.width,
        "eps": place.eps, "paper": place.value, "ours": ours, "by_seed": {str(s): v for s, v in by_seed.items()},
        "seed_deviation": deviation, "difference": difference, "tolerance": tolerance,
        "verdict": None if difference is None else verdict(difference, tolerance, rises=place.rises),
        "eight_bit": eight_bit, "adaptive": adaptive,
        "gain": _gain(samples.get(key, {}), samples.get((place.column, place.eps, "adaptive"), {})),
        "attainable": free, "forwards": _mean(row["forwards"] for row in _flat(samples.get(key, {}))),
        "seconds": _mean(seconds.get(key, ())),
    }  # fmt: skip


def verdict(difference: float, tolerance: float, *, rises: bool) -> str:
    """What a difference says: within the tolerance the figures are the same, beyond it one attack is stronger.

    >>> verdict(-5.0, 3.0, rises=False), verdict(-5.0, 3.0, rises=True), verdict(2.9, 3.0, rises=True)
    ('stronger', 'weaker', 'same')
    """
    if abs(difference) <= tolerance:
        return "same"
    return "stronger" if (difference > 0) == rises else "weaker"


def _figure(
    place: Published, rows: Mapping[int, Sequence[Row]], which: str
) -> tuple[dict[str, Any] | None, dict[int, float]]:
    """The mean over all pictures of all seeds with its interval, and each seed's own mean."""
    values = {
        seed: [row[which][place.metric] for row in of_seed if row[which] is not None] for seed, of_seed in rows.items()
    }
    by_seed = {seed: statistics.fmean(each) for seed, each in sorted(values.items()) if each}
    if not by_seed:
        return None, {}
    pooled = [value for seed in by_seed for value in values[seed]]
    failed = sum(row[which] is None for row in _flat(rows))
    figure = mean_figure(pooled, unit=place.unit, higher_is_better=not place.rises, failed=failed)
    return figure.to_json(), by_seed


def _gain(paper: Mapping[int, Sequence[Row]], adaptive: Mapping[int, Sequence[Row]]) -> dict[str, Any] | None:
    """How much the adaptive attack's loss exceeds the paper's on the same pictures at equally many forwards."""
    losses = {(row["seed"], row["sample"]): row["loss"] for row in _flat(paper)}
    pairs = [(row["loss"], losses.get((row["seed"], row["sample"]))) for row in _flat(adaptive)]
    gains = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    if not gains:
        return None
    figure = mean_figure(gains, unit="", higher_is_better=False)
    return {"loss": figure.to_json(), "at_least": sum(gain >= 0 for gain in gains) / len(gains)}


def _flat(rows: Mapping[int, Sequence[Row]]) -> list[Row]:
    return [row for of_seed in rows.values() for row in of_seed]


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else None
