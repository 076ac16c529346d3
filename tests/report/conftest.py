from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

EPS = (0.0, 0.01, 0.03, 0.1, 0.3)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def figure(value: float | None, unit: str, ci: list[float] | None = None, **counts: int) -> dict[str, Any]:
    return {
        "value": value,
        "unit": unit,
        "n": 64,
        "undefined": 0,
        "failed": 0,
        "ci": ci,
        "higher_is_better": True,
        "method": "Wilson" if unit == "share" else "bootstrap over queries, 2000 resamples, percentile",
        **counts,
    }


def threat(
    name: str, title: str, ranks: tuple[float, ...], shares: tuple[float, ...], grade: str, half: float | None
) -> dict[str, Any]:
    curve = []
    for eps, rank, share in zip(EPS, ranks, shares, strict=True):
        success = figure(share, "share", [max(0, share - 0.1), min(1, share + 0.1)], undefined=2 if eps else 0)
        if eps == 0:
            success = figure(None, "share", None, n=0, undefined=64)
        curve.append(
            {
                "eps": eps,
                "figures": {"rank": figure(rank, "%", [rank * 0.9, rank * 1.1]), "success": success},
                "cost": {"forwards": 31.0 if eps else 1.0, "backwards": 30.0 if eps else 0.0, "seconds": 0.042},
            }
        )
    return {
        "threat": name,
        "title": title,
        "question": "Can an adversarial item reach the first page of a query it has nothing to do with?",
        "direction": "raise",
        "metric": "rank",
        "criterion": "the item is among the first 10 of 1,797",
        "metrics": {"rank": {"unit": "%", "higher_is_better": True, "title": "mean rank of the attacked item"}},
        "access": "gradient",
        "attack": {"name": "apgd", "steps": 30, "restarts": 1, "seed": 0},
        "advice": [
            "Harden the model: embattle harden --data digits.",
            "Re-rank the first page with a second, different model.",
        ],
        "reproduce": f"embattle audit --data digits --only {name} --seed 0",
        "grade": grade,
        "half_eps": half,
        "curve": curve,
    }


def finding(name: str, number: int, eps: float = 0.03) -> dict[str, Any]:
    before = [
        {
            "id": f"digits/test/{i:05d}",
            "blob": f"item{i}.png",
            "similarity": 0.99 - i / 50,
            "rank": i + 1,
            "framed": False,
        }
        for i in range(6)
    ]
    attacked = {
        "id": f"digits/test/{number:05d}",
        "blob": "original.png",
        "similarity": 0.12,
        "rank": 412,
        "framed": True,
    }
    after = [before[0], {**attacked, "blob": "adversarial.png", "similarity": 0.97, "rank": 2}]
    after += [{**item, "rank": item["rank"] + 1} for item in before[1:5]]
    return {
        "row": "finding",
        "unit": "u" * 64,
        "threat": name,
        "eps": eps,
        "sample": f"digits/test/{number:05d}",
        "title": "From nowhere to the first page",
        "original": "original.png",
        "adversarial": "adversarial.png",
        "difference": "difference.png",
        "anchor": {"label": "query", "blob": "item0.png"},
        "rank_before": 412,
        "rank_after": 2,
        "linf": 7 / 255,
        "l2": 0.8,
        "forwards": 31,
        "lists": [
            {"title": "Ranked list of the query before", "items": [*before, attacked]},
            {"title": "Ranked list after", "items": after},
        ],
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    threats = [
        threat("ca+.w1", "Push an item up", (50.0, 31.0, 12.0, 4.0, 2.0), (0, 0.08, 0.53, 0.86, 0.97), "D", 0.03),
        threat("qa-.m1", "Hide results of a query", (0.5, 1.0, 1.9, 5.7, 8.7), (0, 0.0, 0.02, 0.05, 0.2), "A", None),
    ]
    return {
        "schema": "embattle.summary/1",
        "name": "audit",
        "created": "2026-01-02T03:04:05+00:00",
        "embattle": "0.1.0",
        "command": "embattle audit --data digits",
        "commit": "0123abc",
        "config_hash": "c" * 64,
        "environment": {
            "created": "2026-01-02T03:04:05+00:00",
            "python": "3.11.9",
            "torch": "2.13.0",
            "threads": 2,
            "device": "cpu",
        },
        "subject": {
            "row": "subject",
            "model": "SmallNet",
            "fingerprint": "f" * 64,
            "similarity": "cosine",
            "parameters": 12345,
            "dimension": 64,
            "data": "digits/test",
            "gallery": 1797,
            "labelled": True,
            "classes": 10,
        },
        "clean": {
            "recall@1": figure(0.981, "share", [0.97, 0.988]),
            "map@r": figure(None, "share", None, n=0, undefined=5),
        },
        "threats": threats,
        "findings": [finding("ca+.w1", 17), finding("qa-.m1", 18, 0.3)],
        "skipped": [{"row": "skipped", "scenario": "recall under shift", "reason": "the folder has no labels"}],
        "notes": [{"row": "note", "text": "one animated picture: its first frame was used"}],
        "units": {"done": 12, "quarantined": 0},
        "complete": True,
        "gates": [
            {
                "expression": "ca+.w1@0.03 > 40",
                "measured": 12.0,
                "ci": [10.8, 13.2],
                "passed": False,
                "why": "12.0 is not above 40",
            }
        ],
    }


@pytest.fixture
def blob() -> Callable[[str, str], bytes]:
    """Pictures by name, 28 x 28 grey, different for every name."""

    def read(unit: str, name: str) -> bytes:
        seed = zlib.crc32(name.encode())
        return png(np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8))

    return read
