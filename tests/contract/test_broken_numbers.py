"""NaN, infinity and zero gradients: reported, counted, survived, and kept away from everybody else."""

from __future__ import annotations

import pytest
import torch
from embattle_contract_bench import (
    IDS,
    ROWS,
    Net,
    Spied,
    apart,
    embedder,
    every_part,
    pictures,
    plain_loss,
    restless,
    run,
    same,
    unreached,
    without_criterion,
)
from torch import nn

from embattle.attacks import OBJECTIVES, pgd
from embattle.budget import L2, Linf


def _pattern():
    """A picture that `Poisoned` knows again under any perturbation of 0.1: left half white, right half black."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., :4] = 1
    return x


class Poisoned(nn.Module):
    """Gives NaN, infinity, or only a NaN gradient, for one picture; from the k-th call after `arm` on."""

    def __init__(self, inner, how, since=0):
        super().__init__()
        self.inner, self.how, self.since, self.calls = inner, how, since, -1

    def arm(self):
        self.calls = 0

    def forward(self, x):
        z = self.inner(x)
        if self.calls < 0:
            return z
        self.calls += 1
        hit = (x[..., :4].mean((1, 2, 3)) - x[..., 4:].mean((1, 2, 3)) > 0.7).nonzero().flatten()
        if self.calls <= self.since or len(hit) == 0:
            return z
        if self.how == "gradient":
            # The square root has an infinite slope at 0: the value stays, the gradient is 0 times infinity.
            zero = (x[hit] * 0).flatten(1).sum(1, keepdim=True)
            return z.index_add(0, hit, zero.sqrt().expand(-1, z.shape[1]))
        return z.index_fill(0, hit, float(self.how))


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("case", [*every_part(), restless()], ids=str)
def test_broken_numbers_are_reported_and_touch_nobody_else(case, how, since):
    x = torch.cat([pictures()[:2], _pattern(), pictures()[3:]])
    healthy = embedder()
    expected = run(case, healthy, x, seed=5, tile=ROWS)
    if (expected.backwards <= since).all():
        pytest.skip("makes fewer steps than it takes for the numbers to break")
    module = Poisoned(Net(), how, since)
    member = embedder(module)
    whole = case.objective.bind(member)
    module.arm()
    knobs = {"tile": ROWS, **apart(case, range(ROWS))} if case.is_loop else {}
    result = case.attack(member, x, [whole], ids=IDS, seed=5, **knobs)
    assert result.non_finite.tolist() == [False, False, True, False, False, False]
    assert result.status[2] == "non_finite"
    assert torch.isfinite(result.x_adv).all()
    assert result.distance[2] <= case.attack.budget.eps + 1e-6
    others = [0, 1, 3, 4, 5]
    assert torch.equal(result.x_adv[others], expected.x_adv[others])
    assert torch.equal(result.loss[others], expected.loss[others])
    assert not torch.isnan(result.loss).any()
    if how != "gradient" and since == 0:
        assert not result.success[2], "a broken number is no success"
        assert next(r for r in result.records() if r["sample"] == IDS[2])["loss"] is None
    assert "1 with NaN" in str(result)


@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_the_report_of_broken_numbers_does_not_depend_on_company(how):
    # A picture on its last iterate needs no gradient; whether others still do must not change what is said of it.
    x = torch.cat([pictures()[:2], _pattern(), pictures()[3:]])
    results = []
    for flight in (1, 9):
        module = Poisoned(Net(), how, since=0)
        member = embedder(module)
        whole = OBJECTIVES["candidate-rank"].example().bind(member)
        module.arm()
        attack = pgd(budget=Linf(0.1), steps=3, leave_on_success=True, restarts=2)
        results.append(attack(member, x, [whole], ids=IDS, tile=2, tiles_in_flight=flight))
    same(*results)


def test_one_broken_picture_does_not_stop_its_group():
    x = torch.cat([pictures()[:2], _pattern(), pictures()[3:]])
    module = Poisoned(Net(), "nan")
    member = embedder(module)
    whole = OBJECTIVES["match"].example().bind(member)
    module.arm()
    result = pgd(budget=Linf(0.1), steps=5)(member, x, [whole], ids=IDS, groups=[0] * 6, tile=ROWS)
    assert result.non_finite.tolist() == [False, False, True, False, False, False]
    assert result.perturbation.abs().amax() > 0.05, "the whole group stood still"


@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.8)], ids=str)
@pytest.mark.parametrize("blind_at", [0, 1, 3])
@pytest.mark.parametrize("case", unreached(), ids=str)
def test_a_zero_gradient_step_is_counted_and_survived(case, blind_at, budget):
    case = without_criterion(case).having(budget=budget)
    module = Spied(Net(), blind_at=[blind_at])
    member = embedder(module)
    result = run(case, member, tile=ROWS)
    if blind_at >= case.attack.steps:
        assert (result.zero_gradient_steps == 0).all()
        return
    assert (result.zero_gradient_steps == 1).all()
    module._armed = False
    gained = result.loss - plain_loss(case, member, pictures())
    if case.attack.steps == 1:
        assert set(result.status) == {"zero_gradient"}
        return
    seeing = run(case, embedder(Spied(Net())), tile=ROWS).loss - plain_loss(case, member, pictures())
    assert set(result.status) == {"scored"}
    # One step of five or more is lost, not the attack.
    assert (gained > 0.3 * seeing).all()


def test_a_model_without_gradient_is_named():
    module = Spied(Net(), blind_at=range(100))
    for case in unreached():
        result = run(without_criterion(case), embedder(module), tile=ROWS)
        assert set(result.status) == {"zero_gradient"}
        assert torch.equal(result.zero_gradient_steps, result.backwards)
