"""The result is a function of the picture, the objective, the seed and the configuration, and of nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from embattle_contract_bench import (
    IDS,
    ROWS,
    Case,
    bound,
    embedder,
    every_pair,
    every_part,
    pictures,
    restless,
    run,
    same,
    staggered,
)

from embattle.attacks import OBJECTIVES, pgd
from embattle.budget import L2, Linf

ORDER = [4, 0, 5, 2, 1, 3]


@pytest.mark.parametrize("case", [*every_pair(), restless(), restless("shift")], ids=str)
def test_one_by_one_equals_batched_to_the_bit(case):
    member = embedder()
    together = run(case, member, seed=5)
    for row in range(ROWS):
        same(together, run(case, member, rows=[row], seed=5), rows=[row])


@pytest.mark.parametrize("case", [*every_pair(), restless(), restless("candidate-rank")], ids=str)
def test_order_does_not_matter(case):
    member = embedder()
    same(run(case, member, seed=5), run(case, member, rows=ORDER, seed=5), rows=ORDER)


@pytest.mark.parametrize("case", [*every_part(), restless()], ids=str)
def test_equal_seeds_give_equal_results_whatever_the_global_state(case):
    member = embedder()
    first = run(case, member, seed=5)
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    same(first, run(case, member, seed=5))


@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.8)], ids=str)
@pytest.mark.parametrize("start", ["random", "nudge"])
def test_another_seed_is_another_start(start, budget):
    case = Case("", pgd(budget=budget, steps=1, start=start), OBJECTIVES["match"].example())
    seen = []
    for seed in (1, 2):
        # One step of size 1e-9 and keep="last": what comes back is the start.
        attack = pgd(budget=budget, steps=1, step_size=1e-9, start=start, keep="last")
        seen.append(run(Case("", attack, case.objective), embedder(), seed=seed).x_adv - pictures())
    assert not torch.equal(seen[0], seen[1])
    assert all(not torch.equal(a, b) for a, b in zip(seen[0][:3], seen[0][3:], strict=True)), "rows draw alike"


def test_restarts_draw_other_starts():
    attack = pgd(budget=Linf(0.1), steps=1, step_size=1e-9, start="random", keep="last")
    once, often = (
        run(Case("", a, OBJECTIVES["match"].example()), embedder(), seed=3).x_adv
        for a in (attack, pgd(budget=Linf(0.1), steps=1, step_size=1e-9, start="random", keep="last", restarts=8))
    )
    # The best of eight starts is not the first for every one of six pictures.
    assert not torch.equal(once, often)


@pytest.mark.parametrize("case", [*every_part(), restless()], ids=str)
def test_the_number_of_tiles_in_flight_changes_nothing(case):
    member = embedder()
    one = run(case, member, seed=2, tile=2, tiles_in_flight=1)
    same(one, run(case, member, seed=2, tile=2, tiles_in_flight=3))
    same(one, run(case, member, seed=2, tile=2, tiles_in_flight=50))


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("case", staggered(), ids=str)
def test_refill_equals_no_refill_and_no_company(case, restarts):
    # Successes leave at different steps and others take their place in a flight of two; in a flight of all nobody enters.
    eager, member = case.having(leave_on_success=True, restarts=restarts), embedder()
    small = run(eager, member, seed=2, tile=2, tiles_in_flight=1)
    same(small, run(eager, member, seed=2, tile=2, tiles_in_flight=20))
    for row in range(ROWS):
        same(small, run(eager, member, seed=2, tile=2, rows=[row]), rows=[row])
    assert len(set(small.backwards.tolist())) >= 3, "nearly all left at the same step: the test shows nothing"
    assert not small.success.all()


def test_without_ids_the_content_is_the_id():
    case = restless()
    member, x = embedder(), pictures()
    (whole,) = bound(case, member)
    first = case.attack(member, x, [whole], seed=4, tile=4)
    (turned,) = bound(case, member, ORDER)
    again = case.attack(member, x[ORDER], [turned], seed=4, tile=4)
    assert torch.equal(first.x_adv[ORDER], again.x_adv)
    assert len(set(first.ids)) == ROWS


def test_the_caller_s_gradient_mode_changes_nothing():
    case, member = restless(), embedder()
    with torch.no_grad():
        without = run(case, member, seed=4)
    same(run(case, member, seed=4), without)


def test_pictures_are_not_written_to():
    case, x = restless(), pictures()
    before = x.clone()
    result = run(case, embedder(), x, seed=4)
    assert torch.equal(x, before)
    assert result.ids == IDS


GROUPS = [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("case", [case for case in every_part() if case.is_loop], ids=str)
def test_shared_perturbations_do_not_depend_on_order_or_flight(case):
    member = embedder()
    one = run(case, member, seed=2, tile=2, groups=GROUPS)
    same(one, run(case, member, seed=2, tile=2, tiles_in_flight=9, groups=GROUPS))
    turned = run(case, member, seed=2, tile=2, rows=ORDER, groups=[GROUPS[row] for row in ORDER])
    same(one, turned, rows=ORDER)
    assert one.perturbation.shape == (2, 1, 8, 8)
    for row, group in enumerate(GROUPS):
        expected = (pictures()[row] + one.perturbation[group]).clamp(0, 1)
        assert torch.equal(one.x_adv[row], expected)
