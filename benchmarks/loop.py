"""The attack loop against a hand-written PGD of equal forwards, on a small and a deep network, with one thread and two.

``python benchmarks/loop.py --repeats 15 --out results/bench-loop.json``
"""

from __future__ import annotations

from typing import Any

import harness
import torch
from torch import Tensor, nn

from embattle import networks
from embattle.attacks import objectives, pgd
from embattle.budget import Linf
from embattle.embedders import Embedder

EPS, STEP, BATCH = 0.1, 0.02, 32
SUBJECTS = {
    "c2f1": {"network": lambda: networks.build("c2f1"), "shape": (1, 28, 28), "steps": 20},
    "resnet18": {"network": lambda: networks.build("resnet18"), "shape": (3, 64, 64), "steps": 4},
}


def by_hand(embedder: Embedder, x: Tensor, target: Tensor, steps: int) -> Tensor:
    """What a careful person writes: frozen parameters, gradient of the input only, the last iterate scored."""
    x_adv = x.clone()
    with embedder.frozen():
        for step in range(steps + 1):
            leaf = x_adv.detach().requires_grad_(True)
            loss = embedder.similarity.pair(embedder.module(leaf), target)
            if step < steps:
                (grad,) = torch.autograd.grad(loss.sum(), leaf)
                x_adv = (x + (x_adv + STEP * grad.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    return x_adv


def compared(network: nn.Module, shape: tuple[int, ...], steps: int, repeats: int) -> dict[str, Any]:
    """Loop and hand-written loop on one network."""
    embedder = Embedder(network, channels=shape[0])
    x, other = torch.rand(2, BATCH, *shape)
    target = embedder.embed(other)
    last, best = (pgd(budget=Linf(EPS), steps=steps, step_size=STEP, keep=keep) for keep in ("last", "best"))
    objective = objectives.Match(target=target)
    # One flipped sign of a rounded-off gradient moves a pixel by a whole step: most pixels must agree, not all.
    same = (last(embedder, x, objective).x_adv - by_hand(embedder, x, target, steps)).abs() < 1e-6
    seconds = harness.alternate(
        {
            "by hand": lambda: by_hand(embedder, x, target, steps),
            "loop": lambda: last(embedder, x, objective),
            "loop keeping the best": lambda: best(embedder, x, objective),
        },
        repeats,
    )
    return {
        "pictures": BATCH, "shape": shape, "steps": steps, "forwards_of_each_side": steps + 1,
        "median_seconds": harness.medians(seconds), "ratio": harness.ratio(seconds, "loop", "by hand"),
        "ratio_keeping_the_best": harness.ratio(seconds, "loop keeping the best", "by hand"),
        "share_of_equal_pixels": float(same.float().mean()),
    }  # fmt: skip


def main() -> None:
    """Both networks with the given threads, and the small one with one thread."""
    given = harness.arguments(__doc__)
    results = {name: compared(part["network"](), part["shape"], part["steps"], given.repeats)
               for name, part in SUBJECTS.items()}  # fmt: skip
    small = SUBJECTS["c2f1"]
    torch.set_num_threads(1)
    alone = compared(small["network"](), small["shape"], small["steps"], given.repeats)
    torch.set_num_threads(given.threads)
    seconds = {1: alone["median_seconds"]["loop"], given.threads: results["c2f1"]["median_seconds"]["loop"]}
    harness.publish(
        "loop", "seconds of the attack loop over those of a hand-written PGD with equal forwards", given,
        {"networks": results, "c2f1_loop_median_seconds_by_threads": seconds},
    )  # fmt: skip


if __name__ == "__main__":
    main()
