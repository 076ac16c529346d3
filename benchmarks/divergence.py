"""Adversarial-triplet (Madry) training beside EST from the same fresh weights: does the loss fall, and what is learnt?

``python benchmarks/divergence.py --out results/bench-divergence.json`` takes a quarter of an hour on two idle cores.

The ranking paper (section 3.4) reports that the first diverges. A triplet loss that stays near its margin has put all
embeddings on one spot: then positives and negatives are equally far, and the spread of the embeddings is near 0.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

from embattle import data
from embattle.data import ImageSet
from embattle.defenses import HardenConfig, harden
from embattle.embedders import Embedder
from embattle.errors import ModelError

EPS, MARGIN = 0.3, 0.2


def spread(embedder: Embedder, pictures: ImageSet) -> float:
    """Mean cosine distance of two pictures of different classes."""
    assert pictures.labels is not None
    z = embedder.embed(pictures.images)
    other = pictures.labels[:, None] != pictures.labels[None, :]
    return float((1 - embedder.similarity.cross(z, z))[other].mean())


def trained(name: str, given: argparse.Namespace, seen: ImageSet, judged: ImageSet, out: Path) -> dict[str, Any]:
    """Loss by epoch, and Recall@1 and spread of the model that is left; or the sentence that stopped the training."""
    config = HardenConfig.parse({
        "defense": name, "fresh": True, "network": "c2f1", "loss": "triplet", "margin": MARGIN, "eps": EPS,
        "steps": given.steps, "epochs": given.epochs, "batch_size": 128, "lr": 1e-3, "seed": given.seed,
        "threads": given.threads, "precision": "bfloat16",
    })  # fmt: skip
    started = time.perf_counter()
    try:
        result = harden(config, None, seen, out / f"{name}.safetensors", evaluate=judged)
    except ModelError as error:
        return {"stopped": str(error).replace(str(out), "."), "seconds": round(time.perf_counter() - started, 1)}
    recall = result.recall
    assert recall is not None
    return {
        "loss": [round(row["loss"], 4) for row in result.history], "recall_at_1": recall.value, "interval": recall.ci,
        "n": recall.n, "spread": round(spread(result.embedder, judged), 5),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Trains est and madry on MNIST with C2F1, triplet loss on the cosine distance, ε = .3."""
    given = harness.arguments(__doc__, repeats=1, steps=10, epochs=5, pictures=10_000, judged=2_000)
    seen, judged = (
        data.load("mnist", split="train").some(given.pictures),
        data.load("mnist", split="test").some(given.judged),
    )
    with tempfile.TemporaryDirectory() as folder:
        found = {name: trained(name, given, seen, judged, Path(folder)) for name in ("est", "madry")}
    harness.publish(
        "divergence", "adversarial-triplet training beside EST, from the same fresh weights", given,
        {"network": "c2f1", "data": "mnist", "eps": EPS, "margin": MARGIN, "defenses": found},
    )  # fmt: skip


if __name__ == "__main__":
    main()
