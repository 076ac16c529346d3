"""A small batch and a smooth model whose losses a few lines of numpy can check."""

import pytest
import torch
from torch import nn

from embattle.data import ImageSet
from embattle.defenses import DEFENSES, InnerAttack
from embattle.embedders import Embedder
from embattle.similarity import Cosine
from embattle.training import Batch, Triplet


def smooth(similarity="cosine", seed=2):
    """A differentiable little network without kinks, on 5x5 pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.Tanh(), nn.Linear(16, 6))
    return Embedder(module, similarity=similarity, channels=1, name="toy")


def classes(n=12, seed=0):
    """Noisy pictures of three classes, away from black and white."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = 0.3 + 0.3 * torch.rand(n, 1, 5, 5, generator=draw)
    for position, label in enumerate(labels.tolist()):
        x[position, 0, label] += 0.2
    return x, labels


@pytest.fixture
def embedder():
    return smooth()


@pytest.fixture
def make_embedder():
    return smooth


@pytest.fixture
def make_batch():
    def batch(*, n=12, previous_loss=0.0, number=0, labels=True):
        x, found = classes(n)
        ids = tuple(f"p{i}" for i in range(n))
        return Batch(
            x=x, labels=found if labels else None, ids=ids, seed=0, epoch=1, number=number, previous_loss=previous_loss
        )

    return batch


@pytest.fixture
def make_defense():
    def defense(name, *, eps=0.1, steps=3, step_size=0.05, original=None, margin=0.2, similarity=None):
        return DEFENSES[name].build(
            inner=InnerAttack(eps=eps, steps=steps, step_size=step_size), original=original,
            metric_loss=Triplet(similarity=similarity or Cosine(), margin=margin),
        )  # fmt: skip

    return defense


@pytest.fixture
def pictures():
    x, labels = classes(60, seed=4)
    return ImageSet(
        name="bands", images=(x * 255).round().to(torch.uint8), labels=labels, ids=tuple(f"bands/{i}" for i in range(60))
    )
