"""Linear embedders, where the best perturbation of a budget is known: attacks reach it within one percent."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from embattle.attacks import apgd, fgsm, mi_fgsm, pgd
from embattle.attacks.objectives import Avoid, CandidateRank, Match, QueryRank, Shift
from embattle.budget import L2, Linf
from embattle.embedders import Embedder

N, SHAPE = 5, (1, 4, 4)
PIXELS = 16
WITHIN = 1 / 1.01


class Linear(nn.Module):
    """z = A x."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(matrix, similarity="euclidean"):
    return Embedder(Linear(matrix), channels=1, similarity=similarity)


def grey(n=N, seed=1):
    """Pictures far enough from black and white for the box not to matter."""
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 0.4 + 0.3


def reach(a, budget):
    """How far one linear functional moves at most: the dual norm of a, times eps."""
    return budget.eps * float(a.abs().sum() if isinstance(budget, Linf) else a.norm())


BUDGETS = [Linf(0.05), L2(0.2)]
ATTACKS = {
    "fgsm": lambda budget: fgsm(budget=budget),
    "pgd": lambda budget: pgd(budget=budget),
    "mi-fgsm": lambda budget: mi_fgsm(budget=budget),
    "apgd": lambda budget: apgd(budget=budget),
}


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("objective", "towards"), [(Match, 1.0), (Match, -1.0), (Avoid, 1.0), (Avoid, -1.0)])
def test_one_dimensional_match_and_avoid_reach_the_optimum(objective, towards, name, budget):
    a = drawn(1, PIXELS)
    member, x = linear(a), grey()
    target = member(x) + towards * 40
    result = ATTACKS[name](budget)(member, x, objective(target=target))
    clean = -40.0 if objective is Match else 40.0
    best = reach(a, budget)
    gain = result.loss - clean
    assert (gain >= best * WITHIN).all(), f"{gain.min()} of {best}"
    assert (gain <= best * 1.001 + 1e-4).all(), "better than possible: the budget was left"


@pytest.mark.parametrize("name", ["pgd", "mi-fgsm", "apgd"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_one_dimensional_shift_reaches_the_optimum_from_a_stationary_start(name, budget):
    a = drawn(1, PIXELS)
    member, x = linear(a), grey()
    result = ATTACKS[name](budget)(member, x, Shift(anchor=x))
    best = reach(a, budget)
    assert (result.loss >= best * WITHIN).all()
    assert (result.loss <= best * 1.001).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_pixels_at_the_end_of_their_range_move_as_far_as_they_can(name):
    a, budget = drawn(1, PIXELS), Linf(0.2)
    member = linear(a)
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(2)).mul(3).sub(1).clamp(0, 1)
    assert (x == 0).any()
    assert (x == 1).any()
    result = ATTACKS[name](budget)(member, x, Match(target=member(x) + 40))
    expected = (x + budget.eps * a.sign().view(1, *SHAPE)).clamp(0, 1)
    torch.testing.assert_close(result.x_adv, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("attack", [pgd, apgd], ids=lambda attack: attack.__name__)
def test_l2_shift_finds_the_largest_singular_value(attack):
    left, _ = torch.linalg.qr(drawn(6, 6, seed=3))
    right, _ = torch.linalg.qr(drawn(PIXELS, 6, seed=4))
    values = torch.tensor([3.0, 2.0, 1.5, 1.0, 0.5, 0.1])
    member, budget = linear(left @ torch.diag(values) @ right.T), L2(0.2)
    result = attack(budget=budget, steps=60)(member, grey(), Shift(anchor=grey()))
    assert (result.loss >= 3.0 * budget.eps * WITHIN).all()
    assert (result.loss <= 3.0 * budget.eps * 1.001).all()


@pytest.mark.parametrize("attack", [pgd, apgd], ids=lambda attack: attack.__name__)
def test_linf_shift_finds_the_best_corner_of_the_cube(attack):
    pixels, eps = 8, 0.05
    matrix = drawn(3, pixels, seed=5)
    corners = torch.tensor(list(itertools.product([-eps, eps], repeat=pixels)))
    best = float((corners @ matrix.T).norm(dim=1).max())
    x = grey()[:, :, :2]
    result = attack(budget=Linf(eps), steps=20, restarts=6)(linear(matrix), x, Shift(anchor=x))
    assert (result.loss >= best * WITHIN).all()
    assert (result.loss <= best * 1.001).all()


@pytest.mark.parametrize("attack", [pgd, apgd], ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("objective", [Match, Avoid])
def test_the_angle_between_two_pixels_turns_as_far_as_the_ball_allows(attack, objective):
    # The tangent from the origin to a disc of radius eps around x: asin(eps / |x|).
    member, budget = linear(torch.eye(2), similarity="cosine"), L2(0.1)
    x, target = torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([[0.5, 0.6]])
    if objective is Match:
        target = torch.tensor([[0.05, 0.9]])
    angle = torch.acos(torch.nn.functional.cosine_similarity(x.flatten(1), target)).item()
    turn = torch.asin(torch.tensor(budget.eps) / x.norm()).item()
    result = attack(budget=budget, steps=60)(member, x, objective(target=target))
    similarity = result.loss.item() if objective is Match else -result.loss.item()
    reached = torch.acos(torch.tensor(similarity)).item()
    turned = angle - reached if objective is Match else reached - angle
    assert turn * WITHIN <= turned <= turn * 1.001


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_ranking_on_a_line_moves_the_item_as_far_as_it_can(direction, budget, name):
    a = drawn(1, PIXELS)
    member, x = linear(a), grey()
    z = member(x)
    gallery = torch.linspace(-4, 4, 41).view(-1, 1) + z.mean()
    query = z + 3
    result = ATTACKS[name](budget)(member, x, CandidateRank(queries=query, gallery=gallery, direction=direction))
    best = z + reach(a, budget) * (1 if direction == "raise" else -1)
    own, others = (query - best).abs(), (query - gallery.T).abs()
    hinge = (own - others) if direction == "raise" else (others - own)
    torch.testing.assert_close(result.loss, -hinge.clamp_min(0).mean(1), rtol=0.01, atol=1e-5)
    moved = member(result.x_adv) - z
    assert (moved.abs() >= reach(a, budget) * WITHIN).all()


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_query_on_a_line_moves_towards_its_candidate(name, budget):
    a = drawn(1, PIXELS)
    member, x = linear(a), grey()
    z = member(x)
    gallery = torch.linspace(-4, 4, 41).view(-1, 1) + z.mean()
    result = ATTACKS[name](budget)(member, x, QueryRank(candidates=z + 9, gallery=gallery))
    best = z + reach(a, budget)
    hinge = ((z + 9 - best).abs() - (gallery.T - best).abs()).clamp_min(0).mean(1)
    torch.testing.assert_close(result.loss, -hinge, rtol=0.01, atol=1e-5)
