"""What comes back is what was scored: last iterates, restarts, costs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from embattle_contract_bench import (
    ROWS,
    Case,
    Net,
    Spied,
    embedder,
    every_pair,
    every_part,
    loops,
    pictures,
    plain_loss,
    plain_success,
    restless,
    run,
    same,
    without_criterion,
)

from embattle.attacks import OBJECTIVES, pgd
from embattle.budget import Linf
from embattle.embedders import Embedder
from embattle.errors import ConfigError


def iterates(module, x):
    """The pictures that a spied network without preprocessing was shown, one call after the other."""
    assert all(seen.shape == (1, *x.shape[1:]) for seen in module.inputs)
    return torch.cat(module.inputs)


def trace(case, row):
    """Every iterate of one picture's attack and its loss, recomputed."""
    module = Spied(Net())
    member = embedder(module, mean=None, std=None)
    result = run(case, member, rows=[row], tile=1, seed=6)
    seen = iterates(module, pictures())
    module._armed = False
    (whole,) = [case.objective.bind(member)]
    with member.frozen(), torch.no_grad():
        constants = whole.prepare(torch.full((len(seen),), row))
        losses = whole.loss(member.outputs(seen, whole.taps), constants, member)
    return result, seen, losses


@pytest.mark.parametrize("case", every_pair(), ids=str)
def test_loss_and_success_are_those_of_the_returned_pictures(case):
    member = embedder()
    result = run(case, member, seed=6)
    torch.testing.assert_close(result.loss, plain_loss(case, member, result.x_adv), rtol=1e-5, atol=1e-6)
    assert torch.equal(result.success, plain_success(case, member, result.x_adv))


@pytest.mark.parametrize("case", [*loops(), restless()], ids=str)
def test_the_best_of_all_iterates_is_returned_the_last_included(case):
    case = without_criterion(case)
    ended_best = 0
    for row in range(ROWS):
        result, seen, losses = trace(case, row)
        assert len(seen) == case.attack.restarts * (case.attack.steps + 1)
        torch.testing.assert_close(result.loss[0], losses.max(), rtol=1e-5, atol=1e-6)
        assert result.loss[0] >= losses[0] - 1e-6, "worse than the clean picture"
        ended_best += int(torch.equal(seen[-1], result.x_adv[0]))
    if case.attack.restarts == 1:
        assert ended_best > 0, "the last iterate never was the best: the test shows nothing"


@pytest.mark.parametrize("case", loops(), ids=str)
def test_keep_last_returns_the_last_iterate(case):
    result, seen, losses = trace(case.having(keep="last"), 4)
    assert torch.equal(result.x_adv[0], seen[-1])
    torch.testing.assert_close(result.loss[0], losses[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "scores"), [("float32", 1), ("bfloat16", 2)])
def test_unscored_pictures_are_the_same_without_the_forwards_that_score(precision, scores):
    objective, found = OBJECTIVES["match"].example(), {}
    for scored in (True, False):
        module = Spied(Net())
        attack = pgd(budget=Linf(0.1), steps=5, keep="last", scored=scored, precision=precision)
        found[scored] = run(Case("", attack, objective), embedder(module, mean=None, std=None), tile=2, seed=6)
    assert torch.equal(found[False].x_adv, found[True].x_adv)
    assert (found[True].forwards == 5 + scores).all()
    assert (found[False].forwards == 5).all()
    assert (found[False].backwards == 5).all()
    assert (found[False].loss == -torch.inf).all()
    assert not found[False].success.any()


@pytest.mark.parametrize(
    "parts", [{}, {"keep": "last", "restarts": 2}, {"keep": "last", "leave_on_success": True}], ids=str
)
def test_whoever_chooses_by_score_must_score(parts):
    with pytest.raises(ConfigError, match="scored=False leaves nothing to choose by"):
        pgd(budget=Linf(0.1), steps=2, scored=False, **parts)


def test_failures_return_their_best_iterate_and_say_so():
    objective = OBJECTIVES["match"].example()
    hard = type(objective)(target=objective.target, threshold=1.1)
    member = embedder()
    result = run(Case("", pgd(budget=Linf(0.1), steps=5), hard), member)
    assert set(result.status) == {"failed"}
    assert not result.success.any()
    assert (result.distance > 0.05).all()


@pytest.mark.parametrize("objective", [entry.name for entry in OBJECTIVES])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_restarts_never_make_it_worse(objective, keep):
    member, scores = embedder(), []
    for restarts in (1, 2, 4):
        attack = pgd(budget=Linf(0.1), steps=2, start="random", restarts=restarts, keep=keep)
        result = run(Case("", attack, OBJECTIVES[objective].example()), member, seed=6)
        scores.append([(bool(result.success[i]), float(result.loss[i])) for i in range(ROWS)])
    for few, more in pairwise(scores):
        assert all(b >= a for a, b in zip(few, more, strict=True))
    assert scores[0] != scores[-1], "restarts changed nothing at all"


# What it costs ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tile", [1, ROWS])
@pytest.mark.parametrize("case", [*every_part(), restless()], ids=str)
def test_forwards_are_those_the_network_made(case, tile):
    module = Spied(Net())
    result = run(case, embedder(module), tile=tile)
    assert int(result.forwards.sum()) == module.rows
    if case.is_loop:
        assert (result.forwards == case.attack.restarts * (case.attack.steps + 1)).all()
        assert (result.backwards == case.attack.restarts * case.attack.steps).all()


@pytest.mark.parametrize("objective", [entry.name for entry in OBJECTIVES])
def test_forwards_are_counted_when_successes_leave_early(objective):
    module = Spied(Net())
    attack = pgd(budget=Linf(0.1), steps=6, restarts=2, leave_on_success=True)
    result = run(Case("", attack, OBJECTIVES[objective].example()), embedder(module), tile=1)
    assert int(result.forwards.sum()) == module.rows
    done = result.success
    assert (result.forwards[done] <= 2 * 14).all()
    assert (result.forwards[~done] == 14).all(), "who never succeeds makes all steps"


class Jitter:
    """A transform: a random shade per row and step."""

    def __call__(self, x, rows):
        return (x * (0.5 + rows.draw("jitter", (1, 1, 1)).to(x))).clamp(0, 1)


class Masked(Embedder):
    """A stochastic surrogate: the embedding is multiplied by a mask drawn per row and step."""

    stochastic = True
    mask = None

    def opened(self, rows):
        self.mask = (rows.draw("mask", (8,)) > 0.5).float() * 2 if rows.live else None
        return self.frozen()

    def outputs(self, x, taps=("embedding",)):
        found = dict(super().outputs(x, taps))
        if self.mask is not None and len(self.mask) == len(x):
            found["embedding"] = found["embedding"] * self.mask
        return found


def noisy(kind, steps=4, **parts):
    """PGD with a random transform, or on a random surrogate, and the surrogate."""
    module = Spied(Net())
    transforms = (Jitter(),) if kind == "transform" else ()
    attack = pgd(budget=Linf(0.1), steps=steps, transforms=transforms, **parts)
    member = (Masked if kind == "surrogate" else Embedder)(module, channels=1)
    return Case(kind, attack, OBJECTIVES["match"].example()), member, module


@pytest.mark.parametrize("kind", ["transform", "surrogate"])
def test_under_noise_the_best_iterate_is_judged_on_the_plain_model(kind):
    case, member, module = noisy(kind)
    result = run(case, member, tile=1)
    assert (result.forwards == 2 * (4 + 1)).all()
    assert int(result.forwards.sum()) == module.rows
    calm = Embedder(module.inner, channels=1)
    torch.testing.assert_close(result.loss, plain_loss(case, calm, result.x_adv), rtol=1e-5, atol=1e-6)
    assert (result.loss >= plain_loss(case, calm, pictures()) - 1e-6).all()


@pytest.mark.parametrize("kind", ["transform", "surrogate"])
def test_under_noise_keep_last_needs_no_judging(kind):
    case, member, module = noisy(kind, keep="last")
    result = run(case, member, tile=1)
    assert (result.forwards == 5).all()
    assert int(result.forwards.sum()) == module.rows


@pytest.mark.parametrize("kind", ["transform", "surrogate"])
def test_noise_is_keyed_by_the_row_and_its_step(kind):
    case, member, _ = noisy(kind, restarts=2)
    together = run(case, member, seed=5)
    order = [3, 5, 0, 1, 4, 2]
    same(together, run(case, member, seed=5, rows=order, tile=4, tiles_in_flight=2), rows=order)
    for row in range(ROWS):
        same(together, run(case, member, rows=[row], seed=5), rows=[row])
    assert not torch.equal(together.x_adv, run(case, member, seed=6).x_adv)
