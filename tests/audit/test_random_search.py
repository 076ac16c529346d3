"""The search without gradients: inside the budget, on the 8-bit lattice, never worse with more guesses, the same alone."""

from __future__ import annotations

import itertools

import pytest
import torch

from embattle.audit.random_search import random_search

EPS = 20 / 255
IDS = ("a", "b", "c", "d")


def clean() -> torch.Tensor:
    pictures = torch.randint(0, 256, (4, 1, 6, 7), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    pictures[0], pictures[1] = 0, 255
    return pictures


def bright(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.double().flatten(1).sum(1)


def search(queries: int, loss=bright, rows=slice(None), **change) -> torch.Tensor:
    given = {"eps": EPS, "queries": queries, "seed": 3, "ids": IDS[rows], **change}
    return random_search(clean()[rows], loss, **given)


def test_it_stays_in_the_budget_and_on_the_lattice() -> None:
    for queries in (1, 30):
        found = search(queries)
        assert found.dtype == torch.uint8
        change = (found.int() - clean().int()).abs()
        assert change.max() == 20
        assert search(queries, eps=20.9 / 255).equal(found), "only whole grey levels can be used"


def test_more_guesses_are_never_worse_and_reach_the_best_corner() -> None:
    """Of a linear loss the best point is a corner of the box: all pixels up."""
    reached = [bright(search(queries)) for queries in (1, 5, 20, 80, 600)]
    for fewer, more in itertools.pairwise(reached):
        assert (more >= fewer).all()
    best = bright((clean().int() + 20).clamp(0, 255))
    gained = (reached[-1] - bright(clean()).double()) / (best - bright(clean())).clamp_min(1)
    # The second picture is white already: there is nothing above it.
    assert (gained[[0, 2, 3]] > 0.9).all(), gained


def test_every_picture_is_searched_alone() -> None:
    together = search(25)
    for row in range(4):
        assert torch.equal(search(25, rows=slice(row, row + 1))[0], together[row])
    assert not torch.equal(search(25, seed=4), together)


def test_it_counts_what_it_asks() -> None:
    asked = []

    def counted(pictures: torch.Tensor) -> torch.Tensor:
        asked.append(len(pictures))
        return bright(pictures)

    search(17, counted)
    assert asked == [4] * 17


def test_a_broken_answer_is_never_better() -> None:
    calls = itertools.count()

    def brittle(pictures: torch.Tensor) -> torch.Tensor:
        return torch.full((4,), torch.nan) if next(calls) % 2 == 0 else bright(pictures)

    found = search(40, brittle)
    assert (bright(found) >= bright(search(2))).all()


@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (1, 3, 2, 9), (1, 1, 1, 1)])
def test_pictures_of_any_shape(shape: tuple[int, ...]) -> None:
    picture = torch.full(shape, 128, dtype=torch.uint8)
    found = random_search(picture, bright, eps=0.1, queries=40, seed=0, ids=("x",))
    assert found.shape == shape
    assert bright(found) > bright(picture)
