"""The attainable bound against every direction of a circle, tried one by one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError
from embattle.protocols.free_point import free_points


@pytest.fixture
def circle() -> tuple[Embedder, torch.Tensor, torch.Tensor]:
    """An embedder into the plane, a gallery and targets there."""
    embedder = Embedder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), channels=1)
    gallery, targets = F.normalize(torch.randn(50, 2), dim=1), F.normalize(torch.randn(5, 3, 2), dim=2)
    return embedder, gallery, targets


@pytest.mark.parametrize("kind", ["candidate", "query"])
@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_no_direction_of_the_circle_is_much_better(kind: str, direction: str, circle: tuple) -> None:
    embedder, gallery, targets = circle
    if kind == "candidate":
        objective = CandidateRank(queries=targets, gallery=gallery, direction=direction)
    else:
        objective = QueryRank(candidates=targets, gallery=gallery, direction=direction, preserve=gallery[:5, None], xi=1.0)
    found = free_points(embedder, objective, torch.randn(5, 2))
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-5)
    bound = objective.bind(embedder)
    angles = torch.arange(0, 2 * math.pi, 0.01)
    for row in range(5):
        index = torch.full((len(angles),), row)
        z = torch.stack([angles.cos(), angles.sin()], dim=1)
        best = bound.loss({EMBEDDING: z}, bound.prepare(index), embedder)
        ours = bound.loss({EMBEDDING: found[row : row + 1]}, bound.prepare(index[:1]), embedder)
        spread = float(best.max() - best.min())
        assert float(ours) >= float(best.max()) - 0.05 * spread


def test_one_target_is_reached(circle: tuple) -> None:
    embedder, gallery, targets = circle
    objective = CandidateRank(queries=targets[:, :1], gallery=gallery, direction="raise")
    found = free_points(embedder, objective, torch.randn(5, 2))
    own = (found * targets[:, 0]).sum(1)
    assert bool((own >= (gallery @ targets[:, 0].T).amax(0) - 1e-5).all())


def test_lengths_that_matter_are_refused(circle: tuple) -> None:
    _, gallery, targets = circle
    embedder = Embedder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), channels=1, similarity="euclidean")
    with pytest.raises(ConfigError, match="needs the cosine, not euclidean"):
        free_points(embedder, CandidateRank(queries=targets, gallery=gallery), torch.randn(5, 2))
