"""One perturbation for many pictures: on linear embedders the best one is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embattle.attacks import Attack, apgd, pgd, universal
from embattle.attacks.objectives import Match
from embattle.attacks.updates.steepest import Steepest
from embattle.budget import L2, Linf
from embattle.embedders import Embedder
from embattle.errors import ConfigError

N, SHAPE, PIXELS = 6, (1, 4, 4), 16
FAR = 1000.0


class Linear(nn.Module):
    """z = A x."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(low, high, seed=1):
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def towards_far_targets(x, *, seed=3):
    """An embedder, an objective whose gradient in every picture is a constant of its own, and the mean of those."""
    matrix = drawn(3, PIXELS, seed=seed)
    member = Embedder(Linear(matrix), channels=1, similarity="euclidean")
    directions = torch.nn.functional.normalize(drawn(N, 3, seed=seed + 1), dim=1)
    objective = Match(target=member(x) + FAR * directions)
    return member, objective, (directions @ matrix).mean(0).view(SHAPE)


@pytest.mark.parametrize("attack", [universal, apgd], ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("budget", [Linf(0.05), L2(0.2)], ids=str)
def test_away_from_black_and_white_it_is_the_steepest_direction_of_the_mean_gradient(attack, budget):
    x = uniform(0.3, 0.7)
    member, objective, gradient = towards_far_targets(x)
    result = attack(budget=budget, shared=True)(member, x, objective)
    assert result.perturbation.shape == (1, *SHAPE)
    gained = float((result.perturbation[0] * gradient).sum())
    best = budget.eps * float(gradient.abs().sum() if isinstance(budget, Linf) else gradient.norm())
    assert best / 1.01 <= gained <= best * 1.0001
    # What is best for all is less than each could have alone.
    alone = pgd(budget=budget)(member, x, objective)
    assert (alone.loss >= result.loss - 1e-3).all()
    assert alone.loss.mean() > result.loss.mean() + 0.1


def test_clipped_pictures_vote_by_their_mean():
    """One step of at least ε: the mean of what each picture can take of it."""
    budget, x = Linf(0.3), uniform(-0.5, 1.5).clamp(0, 1)
    assert (x == 0).any()
    assert (x == 1).any()
    member, objective, gradient = towards_far_targets(x)
    result = universal(budget=budget, steps=4, step_size=0.3, keep="last")(member, x, objective)
    wanted = ((x + budget.eps * gradient.sign()).clamp(0, 1) - x).mean(0)
    torch.testing.assert_close(result.perturbation[0], wanted, atol=1e-6, rtol=0)
    assert not torch.allclose(wanted.abs(), torch.full(SHAPE, 0.3)), "nothing was clipped: the test shows nothing"
    torch.testing.assert_close(result.x_adv, (x + wanted).clamp(0, 1), atol=1e-6, rtol=0)


def test_small_steps_follow_a_slow_reference():
    eps, size, steps = 0.2, 0.03, 12
    x = uniform(-0.5, 1.5).clamp(0, 1)
    member, objective, gradient = towards_far_targets(x)
    result = universal(budget=Linf(eps), steps=steps, step_size=size, keep="last")(member, x, objective)
    delta = np.zeros(SHAPE)
    for _ in range(steps):
        ball = np.clip(delta + size * np.sign(gradient.double().numpy()), -eps, eps)
        delta = np.mean([np.clip(picture + ball, 0, 1) - picture for picture in x.double().numpy()], axis=0)
    np.testing.assert_allclose(result.perturbation[0].numpy(), delta, atol=1e-6)


@pytest.mark.parametrize("attack", [universal, apgd], ids=lambda attack: attack.__name__)
def test_without_averaging_every_picture_takes_what_it_can_of_the_whole_ball(attack):
    """Where all pictures want the same, as far as possible is best; the mean of clipped copies stays behind."""
    budget, x = Linf(0.3), uniform(-0.5, 1.5).clamp(0, 1)
    matrix = drawn(3, PIXELS, seed=5)
    member = Embedder(Linear(matrix), channels=1, similarity="euclidean")
    direction = torch.nn.functional.normalize(drawn(1, 3, seed=6), dim=1)
    objective = Match(target=member(x) + FAR * direction)
    gradient = (direction @ matrix).view(SHAPE)
    best = (((x + budget.eps * gradient.sign()).clamp(0, 1) - x) * gradient).flatten(1).sum(1)

    def gained(result):
        return ((result.x_adv - x) * gradient).flatten(1).sum(1)

    whole = attack(budget=budget, shared=True, averaged=False)(member, x, objective)
    torch.testing.assert_close(whole.perturbation[0], budget.eps * gradient.sign(), atol=1e-6, rtol=0)
    torch.testing.assert_close(gained(whole), best, atol=1e-5, rtol=0)
    assert (whole.distance <= budget.eps + 1e-6).all()
    averaged = attack(budget=budget, shared=True)(member, x, objective)
    assert gained(averaged).mean() < 0.8 * best.mean()
    # A picture alone has no company to be averaged with.
    apart = [attack(budget=budget, averaged=averaged)(member, x, objective, groups=range(N)) for averaged in (True, False)]
    assert torch.equal(apart[0].x_adv, apart[1].x_adv)


def test_it_is_pgd_in_one_group():
    x = uniform(0, 1)
    member, objective, _ = towards_far_targets(x)
    parts = {"budget": Linf(0.1), "steps": 7, "step_size": 0.02}
    one = universal(**parts)(member, x, objective)
    same = pgd(**parts)(member, x, objective, groups=[5] * N)
    assert torch.equal(one.perturbation, same.perturbation)
    assert torch.equal(one.loss, same.loss)
    groups = [0, 0, 1, 1, 1, 0]
    two = universal(**parts)(member, x, objective, groups=groups)
    assert torch.equal(two.perturbation, pgd(**parts)(member, x, objective, groups=groups).perturbation)
    assert len(two.perturbation) == 2
    with pytest.raises(ConfigError, match="1 group number"):
        universal(**parts)(member, x, objective, groups=[0])


def test_the_defaults_are_the_papers():
    attack = universal(budget=Linf(0.3))
    assert attack == Attack(budget=Linf(0.3), update=Steepest(step_size=2 / 255), steps=100, shared=True)
    assert attack.name == "universal"
    assert not pgd(budget=Linf(0.3)).shared
