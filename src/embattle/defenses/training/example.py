"""A small instance of each defense, for the contract tests."""

from __future__ import annotations

from typing import Any

import torch

from embattle.defenses.training import DEFENSES
from embattle.defenses.training.inner import InnerAttack
from embattle.embedders import Embedder
from embattle.networks import build
from embattle.similarity import Cosine
from embattle.training import Triplet


def example(name: str, **parts: Any) -> Any:
    """A defense with two inner steps; where it needs an original model, a small one with fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        original = Embedder(build("small", size=16, width=4, dimension=8), channels=1)
    given = {
        "inner": InnerAttack(eps=0.1, steps=2, step_size=0.05), "metric_loss": Triplet(similarity=Cosine(), margin=0.2),
        "original": original,
    }  # fmt: skip
    return DEFENSES[name].build(**given, **parts)
