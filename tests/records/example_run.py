"""Writes a plausible run folder with invented numbers and real little pictures, for tests and for looking at reports.

python tests/records/example_run.py FOLDER
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embattle.records.store import LocalStore
from embattle.records.unit import Unit, canonical_json

EPS = (0.0, 0.01, 0.03, 0.1)
# The mean rank goes from "from" (clean) to "to" with exp(-speed * ε); "limit" is the rank that counts as success.
THREATS: tuple[dict[str, Any], ...] = (
    {
        "threat": "ca+.w1",
        "title": "Push an item up",
        "question": "Can an adversarial item reach the first page of a query it has nothing to do with?",
        "direction": "raise",
        "criterion": "the attacked item is among the first 4 % of the gallery",
        "from": 50.0,
        "to": 1.0,
        "speed": 150.0,
        "limit": 4.0,
        "advice": ["Harden the model: embattle harden.", "Do not show prices to <script>alert('x')</script> sellers."],
    },
    {
        "threat": "ca-.w1",
        "title": "Push an item down",
        "question": "Can an item be hidden from a query it belongs to?",
        "direction": "lower",
        "criterion": "the attacked item falls behind 50 % of the gallery",
        "from": 2.0,
        "to": 85.0,
        "speed": 15.0,
        "limit": 50.0,
        "advice": ["Watch for near-duplicates that rank far apart."],
    },
    {
        "threat": "sp-qa+.m1",
        "title": "Promote an item for one query picture",
        "question": "Can an adversarial query show a chosen item first while its other results stay?",
        "direction": "raise",
        "criterion": "the chosen item is among the first 4 % of the gallery",
        "from": 50.0,
        "to": 20.0,
        "speed": 5.0,
        "limit": 4.0,
        "advice": [],
    },
)
METRICS = {
    "rank": {"unit": "%", "title": "mean rank of the attacked item"},
    "distance": {"unit": "", "title": "mean distance the embedding moved"},
}


def write_example_run(folder: Path, *, samples: int = 30, findings: int = 3, missing: int = 0, extra: int = 0) -> Path:
    """Writes config.json, env.json and units/ below `folder` and returns it.

    `missing` units of the plan are left unfinished; `extra` adds that many metrics to each sample row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = LocalStore(folder)
    rng = np.random.default_rng(7)
    units: list[tuple[Unit, list[dict[str, Any]], dict[str, bytes], dict[str, float]]] = []
    units.append(_evaluation(extra))
    for position, threat in enumerate(THREATS):
        for eps in EPS:
            rows = [_sample(threat, eps, index, rng, extra) for index in range(samples)]
            blobs: dict[str, bytes] = {}
            if eps == EPS[2]:
                for number in range(findings // 3 + (position < findings % 3)):
                    row, pictures = _finding(threat, eps, number, rng)
                    rows.append(row)
                    blobs |= pictures
            unit = Unit(
                kind="attack",
                params={"threat": threat["threat"], "eps": eps, "seed": 0},
                samples=tuple(f"digits/test/{index:05d}" for index in range(samples)),
                needs=(units[0][0].id,),
            )
            seconds = 0.0 if eps == 0 else 0.02 * samples
            cost = {"seconds": seconds, "prepare_seconds": 0.1, "samples": samples, "peak_rss_mib": 512.0}
            units.append((unit, rows, blobs, cost))
    config = {"hash": "ab" * 32, "config": {"data": "digits", "seed": 0}, "plan": [unit.id for unit, *_ in units]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "env.json").write_text(json.dumps(_environment()), encoding="utf-8")
    for unit, rows, blobs, cost in units[: len(units) - missing]:
        store.put(unit, rows, blobs, cost)
    for unit, *_ in units[len(units) - missing :][:1]:
        store.quarantine(unit, "ModelError: the model returned NaN for digits/test/00003")
    return folder


def _environment() -> dict[str, Any]:
    return {
        "created": "2025-01-31T12:00:00+00:00", "command": "embattle audit --data digits", "embattle": "0.1.0",
        "commit": None, "python": "3.11.4", "torch": "2.6.0", "numpy": "2.1.0", "platform": "Linux x86_64",
        "cpu": "2 cores", "threads": 2, "device": "cpu",
    }  # fmt: skip


def _evaluation(extra: int) -> tuple[Unit, list[dict[str, Any]], dict[str, bytes], dict[str, float]]:
    figure = {
        "value": 0.964, "unit": "share", "n": 500, "undefined": 0, "failed": 0, "ci": [0.944, 0.977],
        "method": "share; Wilson score 95 %", "higher_is_better": True,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "row": "subject", "model": "embedded:digits", "fingerprint": "cd" * 32, "similarity": "cosine",
            "parameters": 61_234, "dimension": 64, "data": "digits/test", "gallery": 500, "labelled": True,
            "classes": 10,
        },
        {"row": "clean", "figure": "recall@1", "value": figure},
        {"row": "clean", "figure": "map@r", "value": figure | {"value": 0.81, "ci": [0.79, 0.83], "method": "mean"}},
    ]  # fmt: skip
    for threat in THREATS:
        better = threat["direction"] == "raise"  # the owner wants a pushed item to stay behind
        metrics = {name: spec | {"higher_is_better": better and name == "rank"} for name, spec in METRICS.items()}
        for number in range(extra):
            metrics[f"extra{number}"] = {"unit": "", "higher_is_better": False, "title": f"extra figure {number}"}
        described = {name: threat[name] for name in ("threat", "title", "question", "direction", "criterion", "advice")}
        described |= {
            "row": "threat", "metric": "rank", "metrics": metrics, "access": "gradient",
            "attack": {"name": "apgd", "steps": 30, "seed": 0, "restarts": 1},
            "reproduce": f"embattle audit --data digits --only {threat['threat']}",
        }  # fmt: skip
        rows.append(described)
    rows.append({"row": "skipped", "scenario": "recall under shift", "reason": "the folder has no labels"})
    rows.append({"row": "note", "text": "Invented numbers: this run was written by a test."})
    unit = Unit(kind="evaluate", params={"data": "digits"}, samples=(), needs=())
    return unit, rows, {}, {"seconds": 3.2}


def _sample(threat: dict[str, Any], eps: float, index: int, rng: np.random.Generator, extra: int) -> dict[str, Any]:
    share = float(np.exp(-threat["speed"] * eps))
    mean = threat["from"] * share + threat["to"] * (1 - share)
    rank = float(np.clip(mean * rng.lognormal(-0.125, 0.5), 0, 100))
    success = rank <= threat["limit"] if threat["direction"] == "raise" else rank >= threat["limit"]
    metrics: dict[str, float | None] = {"rank": round(rank, 3), "distance": round((1 - share) * 0.9, 4)}
    metrics |= {f"extra{number}": round(float(rng.normal()), 5) for number in range(extra)}
    row: dict[str, Any] = {
        "row": "sample",
        "threat": threat["threat"],
        "eps": eps,
        "sample": f"digits/test/{index:05d}",
        "status": "success" if success else "failed",
        "success": bool(success),
        "metrics": metrics,
        "cost": {"forwards": 1 if eps == 0 else 31, "backwards": 0 if eps == 0 else 30},
    }
    if index == 1:
        row |= {"success": None, "status": "success"}  # the goal held before the attack
    if index == 2 and eps == EPS[-1]:
        row |= {"success": None, "status": "non_finite", "metrics": dict.fromkeys(metrics)}
    return row


def _finding(
    threat: dict[str, Any], eps: float, number: int, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, bytes]]:
    stem = f"{threat['threat'].replace('+', 'p').replace('.', '-')}-{number}"
    original = _digit(rng)
    step = int(eps * 255)
    delta = np.where(rng.random(original.shape) < 0.5, -step, step)
    adversarial = np.clip(original.astype(int) + delta, 0, 255).astype(np.uint8)
    difference = np.clip(127 + 10 * (adversarial.astype(int) - original), 0, 255).astype(np.uint8)
    pictures = {"original": original, "adversarial": adversarial, "difference": difference, "query": _digit(rng)}
    pictures |= {f"item{index}": _digit(rng) for index in range(5)}
    names = {name: f"{stem}-{name}.png" for name in pictures}

    def items(framed: int | None) -> list[dict[str, Any]]:
        return [
            {
                "id": f"digits/test/{100 + index:05d}", "similarity": round(0.95 - 0.05 * index, 3), "rank": index,
                "blob": names["adversarial" if index == framed else f"item{index}"], "framed": index == framed,
            }
            for index in range(5)
        ]  # fmt: skip

    row = {
        "row": "finding", "threat": threat["threat"], "eps": eps, "sample": f"digits/test/{number:05d}",
        "title": f"A picture of a 3 reaches the first page of a query for 7s (no. {number})",
        "original": names["original"], "adversarial": names["adversarial"], "difference": names["difference"],
        "lists": [
            {"title": "Ranked list of query digits/test/00090 before", "items": items(None)},
            {"title": "Ranked list of query digits/test/00090 after", "items": items(2)},
        ],
        "anchor": {"label": "query", "blob": names["query"]},
        "rank_before": 412, "rank_after": 2, "linf": step / 255, "l2": round(step / 255 * 32, 4), "forwards": 31,
    }  # fmt: skip
    return row, {names[name]: _png(picture) for name, picture in pictures.items()}


def _digit(rng: np.random.Generator, side: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A bright ring somewhere on a dark ground: looks different each time, and is a valid picture."""
    y, x = np.mgrid[:side, :side]
    cy, cx, radius = side / 2 + rng.normal(0, 2, 2)[0], side / 2 + rng.normal(0, 2), rng.uniform(5, 11)
    ring = np.exp(-((np.hypot(y - cy, x - cx) - radius) ** 2) / 4)
    return np.asarray(255 * ring, dtype=np.uint8)


def _png(picture: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    print(canonical_json({"written": str(write_example_run(Path(sys.argv[1])))}))
