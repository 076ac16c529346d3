"""Budgets under arbitrary pictures, perturbations and eps: inside, never outward, and inside again as 8-bit files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from embattle.budget import L2, TOLERANCE, Linf
from embattle.errors import BudgetError
from embattle.rng import Rows

SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 1, 3, 3), (3, 3, 2, 4)])
# Grey levels divided by 255, everything between them, and the values that computing with them tends to meet.
EPS = st.one_of(
    st.sampled_from([0.0, 1 / 255, 2 / 255, 8 / 255, 16 / 255, 0.01, 0.03, 0.031, 0.1, 0.3, 1.0]),
    st.floats(0, 1, allow_subnormal=False),
    st.floats(0, 1 / 255, allow_subnormal=False),
    st.integers(0, 255).map(lambda level: level / 255),
)


def tensors(shape, low, high):
    return nps.arrays(np.float32, shape, elements=st.floats(low, high, width=32)).map(torch.from_numpy)


def levels(shape):
    return nps.arrays(np.uint8, shape).map(lambda a: torch.from_numpy(a).float() / 255)


@st.composite
def moved(draw, budgets=(Linf, L2), eight_bit=True):
    """A budget, a picture, and another picture inside the ball and the pixel range."""
    shape, kind, eps = draw(SHAPES), draw(st.sampled_from(budgets)), draw(EPS)
    budget = kind(eps if kind is Linf else eps * 4)
    x = draw(levels(shape) if eight_bit else tensors(shape, 0, 1))
    delta = budget.project(draw(tensors(shape, -1, 1)))
    return budget, x, (x + delta).clamp(0, 1)


def norm(budget, delta):
    flat = delta.double().flatten(1)
    return flat.abs().amax(1) if isinstance(budget, Linf) else flat.norm(dim=1)


@given(st.data())
@pytest.mark.parametrize("kind", [Linf, L2])
def test_projection_is_inside_never_outward_and_leaves_the_inside_alone(kind, data):
    eps = data.draw(EPS)
    budget = kind(eps)
    delta = data.draw(SHAPES.flatmap(lambda shape: tensors(shape, -2, 2)))
    found = budget.project(delta)
    assert (norm(budget, found) <= eps * (1 + 1e-6) + 1e-9).all()
    assert (found.abs() <= delta.abs()).all(), "a pixel was pushed outward"
    assert (found * delta >= 0).all()
    torch.testing.assert_close(budget.project(found), found, atol=1e-7, rtol=1e-6)
    within = norm(budget, delta) < eps * (1 - 1e-6)
    assert torch.equal(found[within], delta[within])


@given(st.data())
def test_the_projection_is_the_nearest_point(data):
    budget = data.draw(st.sampled_from([Linf(0.1), L2(0.5)]))
    delta = data.draw(tensors((1, 1, 2, 2), -2, 2))
    other = budget.project(data.draw(tensors((1, 1, 2, 2), -2, 2)))
    nearest = (budget.project(delta) - delta).double().norm()
    assert nearest <= (other - delta).double().norm() + 1e-6


@given(st.data())
@pytest.mark.parametrize("budget", [Linf(0.5), L2(0.5)], ids=str)
def test_the_steepest_direction_has_unit_size_and_the_largest_inner_product(budget, data):
    grad = data.draw(tensors((2, 1, 2, 3), -100, 100))
    found = budget.steepest(grad)
    assert torch.isfinite(found).all()
    zero = grad.flatten(1).abs().amax(1) == 0
    assert (found[zero] == 0).all()
    size = norm(budget, found[~zero])
    torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-5, atol=0)
    gained = (found.double() * grad.double()).flatten(1).sum(1)
    # The dual norm is the largest inner product that there is.
    dual = grad.double().flatten(1).norm(p=1 if isinstance(budget, Linf) else 2, dim=1)
    torch.testing.assert_close(gained, dual, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e37])
@pytest.mark.parametrize("budget", [Linf(0.5), L2(0.5)], ids=str)
def test_tiny_and_huge_gradients_have_a_direction(budget, scale):
    grad = torch.tensor([[[[3.0, -4.0]]]]) * scale
    size = norm(budget, budget.steepest(grad))
    # The smallest numbers of float32 have few digits left, but they point somewhere.
    torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-3, atol=0)


@given(moved())
@example((Linf(8 / 255), torch.full((1, 1, 1, 1), 100 / 255), torch.full((1, 1, 1, 1), 108 / 255)))
@settings(max_examples=200)
def test_eight_bit_pictures_stay_in_the_ball(case):
    budget, x, x_adv = case
    saved = budget.eight_bit(x, x_adv)
    assert saved.dtype == torch.uint8
    clean = (x * 255).round().to(torch.int64)
    change = (saved.to(torch.int64) - clean).double()
    if isinstance(budget, Linf):
        assert (change.abs() <= math.floor(255 * (budget.eps + TOLERANCE))).all()
    assert (norm(budget, change / 255) <= budget.eps + TOLERANCE).all()
    # Towards the clean picture: no pixel changes more than it did, none changes its side, none moves without a reason.
    wanted = (x_adv.double() - x.double()) * 255
    assert (change.abs() <= wanted.abs() + 1.1e-3).all()
    assert (change * wanted >= -1e-3).all()
    assert (change.abs() >= wanted.abs().floor() - 1.1e-3).all(), "more than one level was lost"


@given(moved(budgets=(Linf,), eight_bit=False))
def test_eight_bit_pictures_of_pictures_between_grey_levels(case):
    budget, x, x_adv = case
    saved = budget.eight_bit(x, x_adv).double() / 255
    size = norm(budget, saved - x.double())
    # A ball narrower than a grey level may hold no 8-bit picture: then the nearest one is taken.
    allowed = budget.eps + TOLERANCE if budget.eps >= 0.5 / 255 else 1 / 255 + TOLERANCE
    assert (size <= allowed).all(), f"{size.max() * 255} levels, eps is {budget.eps * 255}"


@pytest.mark.parametrize("eps", [0.0, 0.5 / 255, 0.99 / 255, 1e-4])
def test_less_than_a_grey_level_leaves_an_eight_bit_picture_as_it_is(eps):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = levels.float() / 255
    for sign in (-1, 1):
        for budget in (Linf(eps), L2(eps)):
            assert torch.equal(budget.eight_bit(x, (x + sign * eps).clamp(0, 1)), levels)


@pytest.mark.parametrize("level", range(1, 33))
def test_whole_grey_levels_arrive_whole(level):
    # uint8 truncation made 9/255 of 8/255 downwards and lost a level upwards.
    x = torch.arange(256).view(1, 1, 16, 16).float() / 255
    for sign in (-1, 1):
        saved = Linf(level / 255).eight_bit(x, (x + sign * (level / 255)).clamp(0, 1))
        expected = (torch.arange(256) + sign * level).clamp(0, 255).view(1, 1, 16, 16)
        assert torch.equal(saved.long(), expected)


@given(moved())
def test_the_measured_size_is_the_norm(case):
    budget, x, x_adv = case
    np.testing.assert_allclose(budget.size(x, x_adv), norm(budget, x_adv.double() - x.double()), rtol=1e-5, atol=1e-7)


@given(EPS, st.sampled_from([Linf, L2]), st.integers(0, 2**31), st.text(max_size=5))
@settings(max_examples=50)
def test_starts_are_inside_and_nudges_are_a_thousandth(eps, kind, seed, name):
    budget, like = kind(eps), torch.zeros(2, 3, 4, 4)
    rows = Rows(seed=seed, ids=(name, name + "'"), step=(0, 0))
    start, nudge = budget.start(rows, like), budget.nudge(rows, like)
    assert (norm(budget, start) <= eps * (1 + 1e-6)).all()
    torch.testing.assert_close(norm(budget, nudge), torch.full((2,), eps / 1000).double(), rtol=1e-5, atol=1e-12)
    assume(eps > 1e-30)
    assert not torch.equal(start[0], start[1])


def test_random_starts_fill_the_ball():
    # Uniform in the cube: mean square eps^2 / 3. Uniform in the ball: the radius r has distribution (r / eps)^n.
    rows = Rows(seed=0, ids=tuple(map(str, range(2000))), step=(0,) * 2000)
    like = torch.zeros(2000, 1, 1, 2)
    cube = Linf(0.2).start(rows, like)
    assert float((cube**2).mean()) == pytest.approx(0.2**2 / 3, rel=0.05)
    assert float(cube.mean()) == pytest.approx(0, abs=0.005)
    radius = L2(0.2).start(rows, like).flatten(1).norm(dim=1)
    for share in (0.3, 0.6, 0.9):
        assert float((radius <= 0.2 * share).float().mean()) == pytest.approx(share**2, abs=0.04)


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), "0.1", None, True])
def test_unusable_eps_is_refused(kind, eps):
    with pytest.raises(BudgetError, match=r"finite number of at least 0.*not"):
        kind(eps)


def test_linf_eps_in_grey_levels_is_recognised():
    with pytest.raises(BudgetError, match=r"8/255 = 0\.0314"):
        Linf(8)


def test_budgets_read_as_people_write_them():
    assert (str(Linf(8 / 255)), str(Linf(0.031)), str(L2(0.5))) == ("Linf 8/255", "Linf 0.031", "L2 0.5")
