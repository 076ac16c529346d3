"""CandidateRank with galleries of 10⁴ to 10⁶: whole attack with its preparation, a step, and the brute-force hinge.

``python benchmarks/candidate_rank.py --out results/bench-candidate-rank.json``
"""

from __future__ import annotations

import time
from typing import Any

import harness
import torch
from torch import Tensor
from torch.nn import functional as F

from embattle import networks
from embattle.attacks import objectives, pgd
from embattle.budget import Linf
from embattle.embedders import EMBEDDING, Embedder

SIZES = (10_000, 100_000, 1_000_000)
PICTURES, DIMENSION, EPS = 32, 128, 0.1


def brute_force(z: Tensor, queries: Tensor, gallery: Tensor) -> Tensor:
    """Minus the mean over the gallery of [s(q, c) − s(q, x)]₊, (n,) (Zhou et al. 2020, Eq. 4), in float64."""
    own = F.cosine_similarity(z, queries).double()
    losses = []
    for one, query in zip(own, queries, strict=True):
        total = 0.0
        for part in gallery.split(100_000):
            total = total + (F.cosine_similarity(query[None].double(), part.double()) - one).clamp_min(0).sum()
        losses.append(-total / len(gallery))
    return torch.stack(losses)


def agreement(embedder: Embedder, z: Tensor, queries: Tensor, gallery: Tensor) -> dict[str, float]:
    """Values and signs of the gradient by the embedding, against brute force."""
    bound = objectives.CandidateRank(queries=queries, gallery=gallery).bind(embedder)
    rows = bound.prepare(torch.arange(len(z)))
    found, expected = (z.clone().requires_grad_(True) for _ in range(2))
    value = bound.loss({EMBEDDING: found}, rows, embedder)
    reference = brute_force(expected, queries, gallery)
    slopes = [torch.autograd.grad(v.sum(), leaf)[0] for v, leaf in ((value, found), (reference, expected))]
    return {
        "largest_relative_difference_of_values": float(((value - reference) / reference).detach().abs().max()),
        "share_of_equal_gradient_signs": float((slopes[0].sign() == slopes[1].sign()).float().mean()),
    }


def main() -> None:
    """Sides are the sizes: each round attacks once with every gallery."""
    given = harness.arguments(__doc__, repeats=3, steps=30)
    embedder = Embedder(networks.build("c2f1", dimension=DIMENSION), channels=1)
    x = torch.rand(PICTURES, 1, 28, 28)
    queries = torch.randn(PICTURES, DIMENSION)
    whole = F.normalize(torch.randn(max(SIZES), DIMENSION))
    z = embedder.embed(x)
    checked = {str(size): agreement(embedder, z[:8], queries[:8], whole[:size]) for size in SIZES[:2]}
    before = harness.reset_peak()
    attack = pgd(budget=Linf(EPS), steps=given.steps, step_size=0.01)
    steps: dict[str, list[float]] = {str(size): [] for size in SIZES}

    def side(size: int) -> Any:
        def run() -> None:
            objective = objectives.CandidateRank(queries=queries, gallery=whole[:size])
            bound = objective.bind(embedder)
            # A second attack finds its tables made: what is left over the steps is the steps' own time.
            held = bound.prepare(torch.arange(PICTURES))
            started = time.perf_counter()
            attack(embedder, x, [bound])
            steps[str(size)].append((time.perf_counter() - started) / (given.steps + 1))
            del held

        return run

    alone = harness.alternate({str(size): side(size) for size in SIZES}, given.repeats)
    per_step = {name: values[1:] for name, values in steps.items()}
    least, most = str(min(SIZES)), str(max(SIZES))
    harness.publish(
        "candidate-rank", "whole attack (gallery bound, tables made, all steps) by size of the gallery", given,
        {
            "pictures": PICTURES, "queries_of_a_picture": 1, "dimension": DIMENSION, "galleries": SIZES,
            "attack_median_seconds": harness.medians(alone), "step_median_seconds": harness.medians(per_step),
            "attack_ratio_most_over_least": harness.ratio(alone, most, least),
            "step_ratio_most_over_least": harness.ratio(per_step, most, least),
            "against_brute_force": checked,
            "peak_megabytes_above_the_gallery": round((harness.peak_bytes() - before) / 2**20),
            "peak_megabytes_of_the_process": round(harness.peak_bytes() / 2**20),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
