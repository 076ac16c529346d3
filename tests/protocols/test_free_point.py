"""The attainable bound against every direction of a circle, tried one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.embedders import Embedder
from embattle.errors import ConfigError
from embattle.protocols.free_point import free_points


@pytest.fixture
def circle() -> tuple[Embedder, torch.Tensor, torch.Tensor]:
    """An embedder into the plane, a gallery and targets there."""
    embedder = Embedder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), channels=1)
    gallery, targets = F.normalize(torch.randn(50, 2), dim=1), F.normalize(torch.randn(5, 3, 2), dim=2)
    return embedder, gallery, targets


def counted(
    gallery: torch.Tensor, targets: torch.Tensor, kind: str
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Mean ranks counted one comparison at a time: of the point in its queries' lists, or of candidates in its list."""

    def ranks(index: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        found = []
        for row, point in zip(index.tolist(), z, strict=True):
            own = targets[row] @ point
            others = targets[row] @ gallery.T if kind == "candidate" else (gallery @ point).expand(len(own), -1)
            found.append((others > own.unsqueeze(1)).sum(1).double().mean())
        return torch.stack(found)

    return ranks


@pytest.mark.parametrize("kind", ["candidate", "query"])
@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_hardly_a_direction_of_the_circle_has_better_ranks(kind: str, direction: str, circle: tuple) -> None:
    embedder, gallery, targets = circle
    if kind == "candidate":
        objective = CandidateRank(queries=targets, gallery=gallery, direction=direction)
    else:
        # What an attack has to preserve must not hold a free point back.
        objective = QueryRank(candidates=targets, gallery=gallery, direction=direction, preserve=gallery[:5, None], xi=1e4)
    ranks = counted(gallery, targets, kind)
    found = free_points(embedder, objective, torch.randn(5, 2), ranks)
    assert torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-5)
    angles = torch.arange(0, 2 * math.pi, 0.01)
    every = torch.stack([angles.cos(), angles.sin()], dim=1)
    reached = ranks(torch.arange(5), found)
    for row in range(5):
        tried = ranks(torch.full((len(angles),), row), every)
        best, worst = (tried.min(), tried.max()) if direction == "raise" else (tried.max(), tried.min())
        assert abs(float(reached[row] - best)) <= 0.1 * abs(float(worst - best))


def test_one_target_is_reached(circle: tuple) -> None:
    embedder, gallery, targets = circle
    objective = CandidateRank(queries=targets[:, :1], gallery=gallery, direction="raise")
    ranks = counted(gallery, targets[:, :1], "candidate")
    found = free_points(embedder, objective, torch.randn(5, 2), ranks)
    assert ranks(torch.arange(5), found).tolist() == [0.0] * 5


def test_lengths_that_matter_are_refused(circle: tuple) -> None:
    _, gallery, targets = circle
    embedder = Embedder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), channels=1, similarity="euclidean")
    with pytest.raises(ConfigError, match="needs the cosine, not euclidean"):
        free_points(
            embedder,
            CandidateRank(queries=targets, gallery=gallery),
            torch.randn(5, 2),
            counted(gallery, targets, "candidate"),
        )


def test_what_an_attack_preserves_is_nothing_to_a_free_point(circle: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks alone cannot tell: the search scores every point it passes, also under a wrong loss."""
    embedder, gallery, targets = circle
    objective = QueryRank(candidates=targets, gallery=gallery, direction="raise", preserve=gallery[:5, None], xi=1e4)
    bind, seen = QueryRank.bind, []

    def spied(self: QueryRank, *arguments: object, **named: object) -> object:
        seen.append(self.preserve)
        return bind(self, *arguments, **named)

    monkeypatch.setattr(QueryRank, "bind", spied)
    free_points(embedder, objective, torch.randn(5, 2), counted(gallery, targets, "query"))
    assert seen == [None]
