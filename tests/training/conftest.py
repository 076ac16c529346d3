"""Fixtures of the training tests: a picture set and a configuration that train in about a second."""

import pytest
import torch

from embattle.data import ImageSet
from embattle.training import TrainConfig


def stripes(n=60, classes=3, side=16, seed=0, name="stripes"):
    """Pictures with a bright band at the height of their class, and noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(0, 60, (n, 1, side, side), generator=rng)
    for position, label in enumerate(labels.tolist()):
        start = label * side // classes
        images[position, :, start : start + 3] += 180
    return ImageSet(name=name, images=images.to(torch.uint8), labels=labels, ids=tuple(f"{name}/{i:03d}" for i in range(n)))


@pytest.fixture(scope="session")
def make_stripes():
    return stripes


@pytest.fixture(scope="session")
def pictures():
    return stripes()


@pytest.fixture(scope="session")
def small():
    """Settings of a small network on the stripes; keywords change them."""

    def settings(**changed):
        plain = {"network": "small", "network_args": {"size": 16, "width": 4, "dimension": 8}, "epochs": 3}
        return TrainConfig.parse(plain | {"batch_size": 25, "threads": 2, "lr": 3e-3} | changed)

    return settings
