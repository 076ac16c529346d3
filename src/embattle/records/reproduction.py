"""A published experiment beside ours: from the rows of a reproduction to cells with tolerance and verdict. No torch."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embattle.records.intervals import mean_figure
from embattle.records.robustness import build_robustness
from embattle.records.store import LocalStore
from embattle.records.summary import read_record, read_run, without_flags

SCHEMA = "embattle.reproduction/1"
# Where files lie changes no figure, and a result is there to be published.
_PLACES = ("--out", "--models", "--data-root")
Row = Mapping[str, Any]
Key = tuple[str, float, str]
# What a reproduction keeps of its paper, beside the units.
PAPER_FILE = "paper.json"
# The clean system and the free point belong to a column, not to an ε.
_WITHOUT_EPS = ("clean", "free")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A cell of a published table: its place, the paper's value (None: not printed), and what counts as the same.

    Args:
        column: what tables call it.
        metric: which of the scenario's metrics it is.
        unit: of the value.
        rises: whether a stronger attack makes the value larger.
        width: targets of a picture.
        tolerance: difference that says nothing, in the value's unit; two deviations between seeds, or half of the
            interval, count if they are more.
        eps: ε; 0 is the clean system.
        value: the paper's.
        attack: the attack whose samples it is a metric of; unset: it is called as the column.
        scenario: what the attacker wants.
        model: which of the protocol's models is attacked.
        defended: whether that model is a defense's: then the figure is the defense's, and a stronger attack its fault.
    """

    column: str
    metric: str
    unit: str
    rises: bool
    width: int
    tolerance: float
    eps: float
    value: float | None
    attack: str = ""
    scenario: str = ""
    model: str = ""
    defended: bool = False

    @property
    def short(self) -> str:
        """The verdict with which we fall short of the paper: a weaker attack, or a defense that is easier to attack."""
        return "stronger" if self.defended else "weaker"

    @property
    def rows(self) -> str:
        """What rows of its samples call it: columns of one attack share them."""
        return self.attack or self.column


def build_reproduction(run: Path) -> dict[str, Any]:
    """The content of result.json from a run folder's finished units and the paper's figures beside them.

    Args:
        run: the run folder; it may be unfinished ("complete" is false then).

    Raises:
        InputError: no run folder of a reproduction, or a damaged file in it.
    """
    config, environment = read_run(run)
    environment = {**environment, "command": without_flags(environment["command"], _PLACES)}
    paper = read_record(run / PAPER_FILE, {"described": dict, "published": list})
    measured = _Measured.of(LocalStore(run), config["plan"])
    judged = bool(paper["described"]["judged"])
    cells = [_cell(Published(**place), measured, judged=judged) for place in paper["published"]]
    verdicts = [cell["verdict"] for cell in cells if cell["verdict"]]
    return {
        "schema": SCHEMA, **paper["described"], "environment": environment, "config_hash": config["hash"],
        "units": {"done": measured.units, "planned": len(config["plan"])},
        "complete": measured.units == len(config["plan"]),
        "models": [
            {
                "name": row.get("name", ""), "seed": row["seed"], "fingerprint": row["model"], "recall@1": row["recall"],
                **{key: cost[key] for key in ("epochs", "epoch_seconds") if key in cost},
            }
            for row, cost in measured.models
        ],
        "verdicts": {name: verdicts.count(name) for name in ("same", "stronger", "weaker")},
        "short": {
            kind: sum(cell["short"] for cell in cells if cell["defended"] == (kind == "defense"))
            for kind in ("attack", "defense")
        },
        "order": paper_order(cells) if judged else None,
        "untelling": sum(cell["verdict"] == "same" and cell["telling"] is False for cell in cells),
        "robustness": _robustness(paper["described"].get("scores") or {}, cells), "cells": cells,
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """The rows of a run by what they speak of: models with their costs, samples by cell and seed, seconds a picture."""

    units: int
    models: Sequence[tuple[Row, Mapping[str, float]]]
    samples: Mapping[Key, Mapping[int, Sequence[Row]]]
    seconds: Mapping[Key, Sequence[float]]

    @classmethod
    def of(cls, store: LocalStore, plan: Sequence[str]) -> _Measured:
        finished = store.done()
        models: list[tuple[Row, Mapping[str, float]]] = []
        samples: dict[Key, dict[int, list[Row]]] = {}
        seconds: dict[Key, list[float]] = {}
        units = [unit for unit in plan if unit in finished]
        for unit in units:
            rows = list(store.rows(unit))
            cost = store.cost(unit)
            models += [(row, cost) for row in rows if row["row"] == "model"]
            found = [row for row in rows if row["row"] == "sample"]
            for row in found:
                samples.setdefault(_key(row), {}).setdefault(row["seed"], []).append(row)
            if found and (spent := cost.get("attack_seconds", cost.get("seconds"))) is not None:
                seconds.setdefault(_key(found[0]), []).append(spent / len(found))
        return cls(units=len(units), models=models, samples=samples, seconds=seconds)

    def rows(self, place: Published, role: str) -> Mapping[int, Sequence[Row]]:
        return self.samples.get((place.rows, 0.0 if role in _WITHOUT_EPS else place.eps, role), {})

    def cost(self, place: Published, role: str) -> dict[str, float | None]:
        """Mean forwards and seconds a picture."""
        forwards = [row["forwards"] for row in _flat(self.rows(place, role))]
        seconds = self.seconds.get((place.rows, place.eps, role), ())
        return {
            name: statistics.fmean(values) if values else None
            for name, values in (("forwards", forwards), ("seconds", seconds))
        }


def _key(row: Row) -> Key:
    return row["column"], row["eps"], row["role"]


def _cell(place: Published, measured: _Measured, *, judged: bool) -> dict[str, Any]:
    role = "paper" if place.eps else "clean"
    rows, adaptive = measured.rows(place, role), measured.rows(place, "adaptive")
    ours, by_seed = _figure(place, rows, "metrics")
    clean, _ = _figure(place, measured.rows(place, "clean"), "metrics")
    deviation = statistics.stdev(by_seed.values()) if len(by_seed) > 1 else None
    tolerance = max(place.tolerance, 2 * (deviation or 0.0), _half_width(ours))
    difference = None if ours is None or place.value is None else ours["value"] - place.value
    # Of the clean system nobody can say that it is stronger or weaker for an attacker.
    decided = judged and place.eps > 0 and difference is not None
    told = verdict(difference, tolerance, rises=place.rises) if decided and difference is not None else None
    return {
        "column": place.column, "attack": place.rows, "scenario": place.scenario, "model": place.model,
        "metric": place.metric, "unit": place.unit, "rises": place.rises, "width": place.width,
        "eps": place.eps, "paper": place.value, "ours": ours, "by_seed": {str(s): v for s, v in by_seed.items()},
        "seed_deviation": deviation, "difference": difference, "tolerance": tolerance,
        "verdict": told, "defended": place.defended, "short": told == place.short,
        # Where our clean figure is within the tolerance of the paper's attacked one, not attacking at all is the same, too.
        "telling": None if clean is None or place.value is None else abs(clean["value"] - place.value) > tolerance,
        "eight_bit": _figure(place, rows, "eight_bit")[0], "adaptive": _figure(place, adaptive, "metrics")[0],
        "gain": _gain(rows, adaptive), "attainable": _figure(place, measured.rows(place, "free"), "metrics")[0],
        "cost": {name: measured.cost(place, name) for name in (role, *(["adaptive"] if adaptive else []))},
    }  # fmt: skip


def _robustness(published: Mapping[str, float | None], cells: Sequence[Row]) -> list[dict[str, Any]]:
    """The robustness scores of the models that a paper has them of, both at every ε, beside the paper's."""
    found = []
    for model, paper in published.items():
        curves: dict[str, dict[float, dict[str, Any]]] = {}
        for cell in cells:
            if cell["model"] == model and cell["eps"] and cell["ours"] is not None:
                figures = curves.setdefault(cell["scenario"], {}).setdefault(cell["eps"], {})
                figures[cell["metric"]] = cell["ours"]
        threats = [
            {"threat": scenario, "curve": [{"eps": eps, "figures": figures} for eps, figures in curve.items()]}
            for scenario, curve in curves.items()
        ]
        found += [
            {"model": model, "eps": point["eps"], "paper": paper, **point["figures"]}
            for point in build_robustness({}, threats)["curve"]
        ]
    return found


def paper_order(cells: Sequence[Row]) -> dict[str, int]:
    """Whether cells stand in the order that the paper has them in.

    Compared are attacked cells of one ε, metric and direction, pair by pair, where the paper's figures lie further apart
    than what our intervals, taken together, leave open. Much of an order may be that of the clean system, so it is also
    counted how many pairs would stand in it had nobody attacked.

    Args:
        cells: of a result.

    Returns:
        "pairs" compared, how many of them have the "same" order, and how many the clean figures have: "unattacked".
    """
    known = [cell for cell in cells if cell["eps"] and cell["paper"] is not None and cell["ours"] is not None]
    clean = {cell["column"]: cell["ours"]["value"] for cell in cells if not cell["eps"] and cell["ours"] is not None}
    found = {"pairs": 0, "same": 0, "unattacked": 0}
    for one, other in itertools.combinations(known, 2):
        gap = one["paper"] - other["paper"]
        if _kind(one) != _kind(other) or abs(gap) <= math.hypot(_half_width(one["ours"]), _half_width(other["ours"])):
            continue
        found["pairs"] += 1
        found["same"] += gap * (one["ours"]["value"] - other["ours"]["value"]) > 0
        if one["column"] in clean and other["column"] in clean:
            found["unattacked"] += gap * (clean[one["column"]] - clean[other["column"]]) > 0
    return found


def _kind(cell: Row) -> tuple[Any, ...]:
    """What two cells share that can be compared; the ranks of seen and of unseen pictures can."""
    return cell["eps"], cell["unit"], cell["rises"], cell["metric"].removeprefix("seen_")


def _half_width(figure: Row | None) -> float:
    return 0.0 if figure is None or figure["ci"] is None else (figure["ci"][1] - figure["ci"][0]) / 2


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
        seed: [row[which][place.metric] for row in of_seed if _known(row[which], place.metric)]
        for seed, of_seed in rows.items()
    }
    by_seed = {seed: statistics.fmean(each) for seed, each in sorted(values.items()) if each}
    if not by_seed:
        return None, {}
    pooled = [value for seed in by_seed for value in values[seed]]
    failed = sum(row[which] is None for row in _flat(rows))
    figure = mean_figure(pooled, unit=place.unit, higher_is_better=not place.rises, failed=failed)
    return figure.to_json(), by_seed


def _known(metrics: Row | None, name: str) -> bool:
    """Whether a sample has a metric; undefined ones, such as the recall of a class's only picture, are None."""
    return metrics is not None and metrics[name] is not None


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
