"""Update rules against the papers' algorithms, written out for one picture at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from embattle.attacks import Attack, mi_fgsm, pgd, ranking_steps
from embattle.attacks.objectives import Match, Shift
from embattle.attacks.updates.adaptive import Adaptive, checkpoints
from embattle.attacks.updates.momentum import Momentum
from embattle.budget import L2, Linf
from embattle.embedders import EMBEDDING, Embedder

N, SHAPE = 4, (1, 8, 8)
IDS = [f"p{i}" for i in range(N)]


class Recorder(nn.Module):
    """A small smooth network that keeps the pictures it is shown."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 6))
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.net(x)


def scene():
    """An embedder, pictures with saturated areas, an objective bound to it, and its loss and gradient at a picture."""
    member = Embedder(Recorder(), channels=1)
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1)).mul(1.6).sub(0.3).clamp(0, 1)
    whole = Match(target=1 - x.roll(1, 0)).bind(member)

    def loss_and_gradient(row, picture):
        # As many copies as the attack has rows: matrix kernels round by the shape of the batch.
        leaf = picture.expand(N, -1, -1, -1).clone().requires_grad_(True)
        with member.frozen():
            loss = whole.loss({EMBEDDING: member.module.net(leaf)}, whole.prepare(torch.tensor([row] * N)), member)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        return float(loss.detach()[0]), grad[:1]

    return member, x, whole, loss_and_gradient


def iterates(attack, member, x, whole):
    """Every picture the network was shown in the attack, (N, steps + 1, C, H, W), and the result."""
    member.module.seen.clear()
    result = attack(member, x, [whole], tile=N, ids=IDS)
    return torch.stack(member.module.seen, dim=1), result


def inside(budget, x, picture):
    """The nearest picture inside the ball and the pixel range, for one picture."""
    delta = picture - x
    if isinstance(budget, Linf):
        delta = delta.clamp(-budget.eps, budget.eps)
    elif delta.norm() > budget.eps:
        delta = delta * (budget.eps / delta.norm())
    return (x + delta).clamp(0, 1)


def uphill(budget, direction):
    return direction.sign() if isinstance(budget, Linf) else direction / direction.norm()


BUDGETS = pytest.mark.parametrize("budget", [Linf(0.08), L2(0.6)], ids=str)


# PGD -------------------------------------------------------------------------------------------------------------------
@BUDGETS
def test_pgd_equals_the_written_out_loop(budget):
    member, x, whole, f = scene()
    seen, _ = iterates(pgd(budget=budget, steps=8, step_size=0.03), member, x, whole)
    for row in range(N):
        at = x[row : row + 1]
        for step in range(9):
            torch.testing.assert_close(seen[row, step], at[0], atol=1e-6, rtol=0)
            at = inside(budget, x[row : row + 1], at + 0.03 * uphill(budget, f(row, at)[1]))


@pytest.mark.parametrize(
    ("eps", "size", "steps"), [(0.01, 1 / 255, 10), (0.03, 1 / 255, 15), (0.1, 0.01, 20), (0.3, 0.01, 30)]
)
def test_the_ranking_paper_s_step_rule(eps, size, steps):
    # alpha = min(max(eps / 10, 1 / 255), 0.01), T = min(max(10, 2 eps / alpha), 30), as the paper's section 4.1 says.
    member, x, whole, f = scene()
    assert ranking_steps(eps) == (pytest.approx(size), steps)
    attack = pgd(budget=Linf(eps), rule="ranking")
    assert attack.steps == steps
    seen, _ = iterates(attack, member, x, whole)
    assert seen.shape[1] == steps + 1
    at = x[:1]
    for step in range(steps + 1):
        torch.testing.assert_close(seen[0, step], at[0], atol=2e-6, rtol=0)
        at = torch.minimum(torch.maximum(at + size * f(0, at)[1].sign(), x[:1] - eps), x[:1] + eps).clamp(0, 1)


# MI-FGSM ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@BUDGETS
def test_momentum_accumulates_normalised_gradients_not_signs(budget, decay, norm):
    member, x, whole, f = scene()
    attack = Attack(budget=budget, update=Momentum(step_size=0.02, decay=decay, norm=norm), steps=8)
    seen, _ = iterates(attack, member, x, whole)
    signed_differs = False
    for row in range(N):
        at, velocity, of_signs = x[row : row + 1], 0, 0
        for step in range(9):
            torch.testing.assert_close(seen[row, step], at[0], atol=1e-6, rtol=0)
            grad = f(row, at)[1]
            velocity = decay * velocity + grad / grad.norm(p=1 if norm == "l1" else 2)
            of_signs = decay * of_signs + grad.sign()
            signed_differs |= bool((velocity.sign() != of_signs.sign()).any())
            at = inside(budget, x[row : row + 1], at + 0.02 * uphill(budget, velocity))
    assert signed_differs, "accumulated signs would give the same iterates: the test shows nothing"


def test_mi_fgsm_has_the_paper_s_step_size():
    attack = mi_fgsm(budget=Linf(0.1), steps=10)
    assert attack.update.step_size == pytest.approx(0.01)
    assert attack.update.decay == 1.0


# Auto-PGD --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Watched:
    """An update rule whose step sizes are written down."""

    inner: Adaptive
    factors: list = field(default_factory=list)

    def init(self, delta):
        return self.inner.init(delta)

    def step(self, state, at, space):
        state, delta = self.inner.step(state, at, space)
        self.factors.append(state["factor"].clone())
        return state, delta


def auto_pgd(f, x, row, budget, steps, rho=0.75, alpha=0.75):
    """Croce and Hein 2020, Algorithm 1, for one picture; as in the authors' code, progress is looked at before stepping on.

    Returns the pictures that were evaluated and the step size used at each step.
    """
    marks, shares = [], [0.0, 0.22]
    while shares[-1] < 1:
        marks.append(math.ceil(round(shares[-1] * steps, 6)))
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    clean, size = x[row : row + 1], 2 * budget.eps

    def projected(delta):
        delta = delta.clamp(-budget.eps, budget.eps) if isinstance(budget, Linf) else budget.project(delta)
        return (clean + delta).clamp(0, 1) - clean

    def at(delta):
        return (clean + delta).clamp(0, 1)

    previous, now = torch.zeros_like(clean), torch.zeros_like(clean)
    value, grad = f(row, at(now))
    best, best_value, best_grad = now, value, grad
    values, pictures, sizes = [value], [at(now)], []
    last_mark, size_then, best_then, reasons = 0, size, None, []
    for k in range(steps):
        if k in marks and k > 0:
            rising = sum(values[i + 1] > values[i] for i in range(last_mark, k))
            few = rising < rho * (k - last_mark)
            stuck = size == size_then and best_value == best_then
            size_then, best_then, last_mark = size, best_value, k
            reasons.append((few, stuck))
            if few or stuck:
                size, now, grad = size / 2, best, best_grad
        z = projected(now + size * budget.steepest(grad))
        there = z if k == 0 else projected(now + alpha * (z - now) + (1 - alpha) * (now - previous))
        previous, now = now, there
        value, grad = f(row, at(now))
        if value > best_value:
            best, best_value, best_grad = now, value, grad
        values.append(value)
        pictures.append(at(now))
        sizes.append(size)
    best = at(best)
    return torch.cat(pictures), sizes, best, reasons


@BUDGETS
@pytest.mark.parametrize("steps", [10, 40])
def test_auto_pgd_equals_algorithm_1(budget, steps):
    member, x, whole, f = scene()
    rule = Watched(Adaptive(first=2.0))
    seen, result = iterates(Attack(budget=budget, update=rule, steps=steps), member, x, whole)
    outcomes = set()
    for row in range(N):
        pictures, sizes, best, reasons = auto_pgd(f, x, row, budget, steps)
        used = [float(factors[row]) * budget.eps for factors in rule.factors]
        assert used == pytest.approx(sizes), f"row {row}"
        torch.testing.assert_close(seen[row], pictures, atol=1e-6, rtol=0)
        torch.testing.assert_close(result.x_adv[row], best[0], atol=1e-6, rtol=0)
        outcomes |= {few or stuck for few, stuck in reasons}
    # A rule that halves at every checkpoint (a best loss compared with itself) must not pass here.
    assert outcomes == {True, False}


def test_the_step_is_halved_when_the_best_stands_still_although_most_steps_rise():
    # Condition 2 on its own: after one fall every step rises, but never above the clean picture's loss.
    rule, budget = Adaptive(first=2.0), Linf(0.1)
    member, x, whole, _ = scene()
    losses = [5.0, 1.0] + [2.0 + i / 10 for i in range(20)]
    watched = Watched(rule)

    @dataclass(frozen=True)
    class Scripted:
        def init(self, delta):
            return watched.init(delta)

        def step(self, state, at, space):
            told = torch.tensor([losses[int(s)] for s in at.step])
            return watched.step(
                state, type(at)(delta=at.delta, grad=at.grad, loss=told, step=at.step, steps=at.steps), space
            )

    Attack(budget=budget, update=Scripted(), steps=20)(member, x, [whole], tile=N)
    factors = [float(f[0]) for f in watched.factors]
    marks = checkpoints(20)
    assert marks[:2] == (5, 9)
    assert factors[: marks[1]] == [2.0] * marks[1], "at the first checkpoint there is no earlier best to compare with"
    assert factors[marks[1]] == 1.0
    assert factors[marks[2]] == 1.0, "halved at the last checkpoint: condition 2 waits for one more"
    assert factors[marks[3]] == 0.5


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 20, 100, 1000])
def test_checkpoints_follow_the_paper(steps):
    shares = [0.0, 0.22]
    while shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06) < 1 - 1e-9:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    expected = sorted({math.ceil(round(share * steps, 6)) for share in shares[1:]} - {steps})
    assert list(checkpoints(steps)) == expected


# Starts ----------------------------------------------------------------------------------------------------------------
@BUDGETS
def test_a_stationary_objective_starts_from_a_nudge_and_others_from_the_clean_picture(budget):
    member, x, whole, _ = scene()
    x = x.clamp(0.2, 0.8)
    seen, _ = iterates(pgd(budget=budget, steps=2), member, x, whole)
    assert torch.equal(seen[:, 0], x)
    seen, result = iterates(pgd(budget=budget, steps=2), member, x, Shift(anchor=x).bind(member))
    nudge = seen[:, 0] - x
    size = nudge.abs().flatten(1).amax(1) if isinstance(budget, Linf) else nudge.flatten(1).norm(dim=1)
    torch.testing.assert_close(size, torch.full((N,), budget.eps / 1000), rtol=0.01, atol=1e-7)
    assert (result.zero_gradient_steps == 0).all()
    assert (result.loss > 0.01).all()


def test_a_start_that_was_asked_for_is_kept_for_a_stationary_objective():
    member, x, _, _ = scene()
    x = x.clamp(0.2, 0.8)
    seen, _ = iterates(pgd(budget=Linf(0.1), steps=1, start="random"), member, x, Shift(anchor=x).bind(member))
    assert (seen[:, 0] - x).abs().amax() > 0.05


# Universal -------------------------------------------------------------------------------------------------------------
@BUDGETS
def test_a_shared_perturbation_is_the_mean_of_its_clipped_copies(budget):
    member, x, whole, f = scene()
    groups, steps, size = [0, 1, 0, 0], 6, 0.03
    attack = pgd(budget=budget, steps=steps, step_size=size)
    member.module.seen.clear()
    result = attack(member, x, [whole], tile=N, ids=IDS, groups=groups)
    for group in (0, 1):
        rows = [row for row in range(N) if groups[row] == group]
        delta, best, best_delta = torch.zeros(1, *SHAPE), -math.inf, None
        for _step in range(steps + 1):
            found = [f(row, (x[row : row + 1] + delta).clamp(0, 1)) for row in rows]
            mean = sum(loss for loss, _ in found) / len(rows)
            if mean > best:
                best, best_delta = mean, delta
            grad = sum(g for _, g in found) / len(rows)
            moved = delta + size * uphill(budget, grad)
            if isinstance(budget, Linf):
                moved = moved.clamp(-budget.eps, budget.eps)
            elif moved.norm() > budget.eps:
                moved = moved * (budget.eps / moved.norm())
            delta = sum((x[row : row + 1] + moved).clamp(0, 1) - x[row : row + 1] for row in rows) / len(rows)
        torch.testing.assert_close(result.perturbation[group], best_delta[0], atol=2e-6, rtol=0)
        for row in rows:
            torch.testing.assert_close(result.x_adv[row], (x[row] + best_delta[0]).clamp(0, 1), atol=2e-6, rtol=0)
    assert not torch.equal(result.perturbation[0], result.perturbation[1])
    assert (result.forwards == steps + 1).all()


def test_few_steps_find_a_target_inside_the_ball_only_when_the_first_is_short():
    # The nearest reachable point to the target is the target itself, at 0.3 ε: steps of 2ε only go from wall to wall.
    torch.manual_seed(0)
    x = torch.rand(6, 1, 4, 4) * 0.6 + 0.2
    target = x + 0.03 * torch.randn_like(x).sign()
    member = Embedder(nn.Flatten(), similarity="euclidean", channels=1)
    missed = [
        -Attack(budget=Linf(0.1), update=Adaptive(first=first), steps=10)(member, x, Match(target=target)).loss
        for first in (0.5, 2.0)
    ]
    assert (missed[0] < missed[1]).all()


def test_auto_pgd_begins_with_half_of_eps_unless_told_otherwise():
    from embattle.attacks import apgd

    assert apgd(budget=Linf(0.1)).update.first == 0.5
    assert apgd(budget=Linf(0.1), first=2.0).update.first == 2.0
