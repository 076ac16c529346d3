"""The attack loop against a hand-written PGD of equal forwards, in one process, sides alternating.

``make bench`` prints JSON: medians, ratio, machine, commit; ``make bench ARGS="--repeats 15"`` repeats more often.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from embattle import networks
from embattle.attacks import objectives, pgd
from embattle.budget import Linf
from embattle.embedders import Embedder
from embattle.runs import describe_environment

STEPS, EPS, BATCH = 10, 0.1, 32


def by_hand(embedder: Embedder, x: Tensor, target: Tensor) -> Tensor:
    """What a careful person writes: frozen parameters, gradient of the input only, the last iterate scored."""
    x_adv = x.clone()
    with embedder.frozen():
        for step in range(STEPS + 1):
            leaf = x_adv.detach().requires_grad_(True)
            loss = embedder.similarity.pair(embedder.module(leaf), target)
            if step < STEPS:
                (grad,) = torch.autograd.grad(loss.sum(), leaf)
                x_adv = (x + (x_adv + 0.02 * grad.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    return x_adv


def main() -> None:
    """Prints the record of one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    embedder = Embedder(networks.build("c2f1"), channels=1)
    x, other = torch.rand(2, BATCH, 1, 28, 28)
    target = embedder.embed(other)
    attack = pgd(budget=Linf(EPS), steps=STEPS, step_size=0.02, keep="last")
    objective = objectives.Match(target=target)
    difference = float((attack(embedder, x, objective).x_adv - by_hand(embedder, x, target)).abs().max())
    seconds: dict[str, list[float]] = {"loop": [], "by hand": []}
    sides = {"loop": lambda: attack(embedder, x, objective), "by hand": lambda: by_hand(embedder, x, target)}
    for _ in range(given.repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    record = {
        "benchmark": "attack loop over a hand-written loop, C2F1, 32 pictures, 10 steps, 11 forwards",
        "median_seconds": medians, "ratio": medians["loop"] / medians["by hand"], "repeats": given.repeats,
        "largest_difference_of_pictures": difference, "seed": given.seed,
        "environment": describe_environment("benchmarks/loop.py"),
    }  # fmt: skip
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
