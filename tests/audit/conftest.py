"""A small searchable gallery whose rankings a few lines of numpy can check."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import embattle as eb
from embattle.audit import Subject
from embattle.data import ImageSet

COUNT, CLASSES = 40, 4


def gallery(*, labelled: bool = True, count: int = COUNT, name: str = "shelf") -> ImageSet:
    """Grey pictures of 5x5, a bright patch that depends on the class, and noise."""
    draw = torch.Generator().manual_seed(11)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 120, (count, 1, 5, 5), generator=draw)
    for position, label in enumerate(labels.tolist()):
        images[position, 0, label : label + 2, label : label + 2] += 110
    return ImageSet(
        name=name, images=images.to(torch.uint8), labels=labels if labelled else None,
        classes=tuple("abcd") if labelled else None, ids=tuple(f"{name}/{i:03d}" for i in range(count)),
    )  # fmt: skip


def model(similarity: str = "cosine") -> eb.Embedder:
    """A small smooth network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 16), torch.nn.Tanh(), torch.nn.Linear(16, 6))
    return eb.Embedder(module, similarity=similarity, channels=1, name="toy")


@pytest.fixture(params=["cosine", "euclidean"])
def similarity(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["kept", "replaced"])
def own(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def subject(similarity: str, own: str) -> Subject:
    return Subject.of(model(similarity), gallery(), k=4, keep_own=own == "kept", preserve=3)


@pytest.fixture
def make_subject() -> Callable[..., Subject]:
    def make_subject(
        *, similarity: str = "cosine", own: str = "kept", labelled: bool = True, **settings: object
    ) -> Subject:
        given = {"k": 4, "preserve": 3, **settings}
        return Subject.of(model(similarity), gallery(labelled=labelled), keep_own=own == "kept", **given)

    return make_subject


@pytest.fixture
def make_gallery() -> Callable[..., ImageSet]:
    return gallery


@pytest.fixture
def make_model() -> Callable[..., eb.Embedder]:
    return model


class Oracle:
    """Rankings in float64 numpy, one row at a time."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.z = subject.z.double().numpy()
        self.keep = subject.keep_own

    def closeness(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n, D), (m, D) -> (n, m), higher is closer."""
        if self.subject.similarity.name == "cosine":
            a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
            return a @ b.T
        return -np.linalg.norm(a[:, None] - b[None], axis=2)

    def rank(self, query: np.ndarray, item: np.ndarray, out: int | list[int] | None) -> int:
        """How many gallery items, `out` not among them, are strictly closer to the query than the item is."""
        closer = self.closeness(query[None], self.z)[0] > self.closeness(query[None], item[None])[0, 0] + 1e-12
        if out is not None:
            closer[out] = False
        return int(closer.sum())

    def nearest(self, position: int) -> list[int]:
        """All others, nearest first."""
        order = np.argsort(-self.closeness(self.z[[position]], self.z)[0], kind="stable")
        return [int(other) for other in order if other != position]


@pytest.fixture
def make_oracle() -> Callable[[Subject], Oracle]:
    return Oracle


@pytest.fixture
def oracle(subject: Subject) -> Oracle:
    return Oracle(subject)
