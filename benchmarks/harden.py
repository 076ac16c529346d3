"""A step of defensive training over a plain one, beside its lower limit: the plain step and the inner passes alone.

``python benchmarks/harden.py --repeats 9 --out results/bench-harden.json``

The limit is 1 + steps x (time of a forward pass with the gradient of the input, over the time of a plain step): nobody who
attacks as many pictures with as many steps can be faster. It leaves out what every defense needs besides: embeddings of the
clean pictures, and for triplets a training step on three pictures for each. The second limit has the latter in it. The
passes are over pictures at the edge of the budget, as an attack's are: pooling takes longer there than over flat ground.
The same passes over the clean pictures are timed as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import torch
from torch import Tensor

from embattle import data, networks
from embattle.attacks.precision import stepping
from embattle.data import ImageSet
from embattle.defenses import HardenConfig, harden
from embattle.defenses.training.inner import TILE
from embattle.embedders import EMBEDDING, Embedder
from embattle.training import TrainConfig, train

EPS, BATCH, CLASSES = 0.3, 128, 10
# Triplets of a batch: as many for each class as fit.
TRIPLETS = BATCH // CLASSES * CLASSES
# Pictures that a defense attacks at once, and those that its loss is taken on.
DEFENSES = {
    "est": (BATCH, BATCH), "fare": (BATCH, BATCH), "act": (2 * TRIPLETS, 3 * TRIPLETS),
    "hm": (3 * TRIPLETS, 3 * TRIPLETS), "hm-ics": (3 * TRIPLETS, 5 * TRIPLETS), "hm-constant": (3 * TRIPLETS, 3 * TRIPLETS),
}  # fmt: skip


def trainings(
    name: str, pictures: ImageSet, start: Embedder, given: argparse.Namespace, out: Path
) -> dict[str, Callable[[], float]]:
    """The trainer with the defense, and without."""
    shared = {"epochs": 1, "batch_size": BATCH, "lr": 1e-4, "seed": given.seed, "threads": given.threads}
    precision = "bfloat16" if given.bfloat16 else "float32"
    hard = HardenConfig.parse(
        {**shared, "defense": name, "eps": EPS, "steps": given.steps, "batch_norm": "train", "precision": precision}
    )
    plain = TrainConfig.parse({**shared, "network": None})
    return {
        "defense": lambda: harness.seconds_of_a_batch(
            lambda show: harden(hard, start, pictures, out / f"{name}.safetensors", resume=False, progress=show)
        ),
        "plain": lambda: harness.seconds_of_a_batch(
            lambda show: train(plain, pictures, out / "plain.safetensors", start=start, resume=False, progress=show)
        ),
    }


def inner_passes(member: Embedder, x: Tensor, steps: int, tile: int) -> None:
    """The least that an attack computes: forward and gradient of the input, in the same tiles; no update, no score."""
    with member.frozen():
        for _ in range(steps):
            for part in x.split(tile):
                leaf = part.detach().requires_grad_(True)
                torch.autograd.grad(member.outputs(leaf)[EMBEDDING].float().sum(), leaf)


def training_step(member: Embedder, optimiser: torch.optim.Optimizer, x: Tensor) -> None:
    """The least that a training step on `x` computes."""
    member.module.train()
    optimiser.zero_grad(set_to_none=True)
    member.outputs(x)[EMBEDDING].square().sum().backward()
    optimiser.step()


def compared(name: str, pictures: ImageSet, start: Embedder, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """One defense beside the plain training and both limits."""
    attacked, trained = DEFENSES[name]
    clean = pictures.images.float() / 255
    noisy = (clean + EPS * torch.randn_like(clean).sign()).clamp(0, 1)
    walker = stepping(start, "bfloat16" if given.bfloat16 else "float32", clean[:1])
    learner = start.sharing_preprocessing(networks.build("c2f1"))
    optimiser = torch.optim.Adam(learner.module.parameters(), lr=1e-4)
    # Tuples lie below one another in as many rows as there are triplets.
    tile = attacked if attacked > BATCH else min(TILE, attacked)
    flat, repeated = (torch.cat([some] * -(-max(attacked, trained) // len(some))) for some in (clean, noisy))

    def watched(work: Callable[[], None]) -> Callable[[], float]:
        def watch() -> float:
            started = time.perf_counter()
            for _ in range(given.batches):
                work()
            return (time.perf_counter() - started) / given.batches

        return watch

    seconds = harness.alternate_stopwatches(
        {
            **trainings(name, pictures, start, given, out),
            "inner passes": watched(lambda: inner_passes(walker, repeated[:attacked], given.steps, tile)),
            "clean inner passes": watched(lambda: inner_passes(walker, flat[:attacked], given.steps, tile)),
            "training step": watched(lambda: training_step(learner, optimiser, repeated[:trained])),
        },
        given.repeats,
    )
    seconds["plain and inner passes"] = _sums(seconds, "plain", "inner passes")
    seconds["plain and clean inner passes"] = _sums(seconds, "plain", "clean inner passes")
    seconds["its own step and inner passes"] = _sums(seconds, "training step", "inner passes")
    return {
        "attacked_pictures": attacked, "trained_pictures": trained, "median_seconds": harness.medians(seconds),
        "ratio": harness.ratio(seconds, "defense", "plain"),
        "limit": harness.ratio(seconds, "plain and inner passes", "plain"),
        "over_the_limit": harness.ratio(seconds, "defense", "plain and inner passes"),
        "over_the_limit_of_clean_pictures": harness.ratio(seconds, "defense", "plain and clean inner passes"),
        "over_the_limit_of_its_own_pictures": harness.ratio(seconds, "defense", "its own step and inner passes"),
    }  # fmt: skip


def _sums(seconds: dict[str, list[float]], first: str, second: str) -> list[float]:
    return [a + b for a, b in zip(seconds[first], seconds[second], strict=True)]


def main() -> None:
    """est, fare, act and hm on MNIST with C2F1; --bfloat16 1 takes the inner steps in that precision."""
    given = harness.arguments(__doc__, repeats=9, steps=10, batches=3, bfloat16=0)
    pictures = data.load("mnist", split="train").some((given.batches + 1) * BATCH)
    start = Embedder(networks.build("c2f1"), channels=1, size=(28, 28))
    with tempfile.TemporaryDirectory() as folder:
        found = {name: compared(name, pictures, start, given, Path(folder)) for name in DEFENSES}
    harness.publish(
        "harden", "seconds of a defensive training step over a plain one, beside its lower limit", given,
        {"network": "c2f1", "data": "mnist", "eps": EPS, "batch": BATCH, "defenses": found},
    )  # fmt: skip


if __name__ == "__main__":
    main()
