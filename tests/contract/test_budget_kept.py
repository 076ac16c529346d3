"""The budget is measured again outside the attack, in numpy and float64, and once more on the PNG file."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from embattle_contract_bench import (
    SIDE,
    Case,
    Net,
    embedder,
    every_pair,
    every_part,
    loops,
    pictures,
    plain_loss,
    plain_success,
    restless,
    run,
    unreached,
)
from PIL import Image

from embattle.attacks import OBJECTIVES, apgd, fgsm, mi_fgsm, pgd
from embattle.attacks.objectives import Match
from embattle.budget import L2, Linf

BUDGETS = [Linf(8 / 255), Linf(0.031), Linf(0.3), Linf(0.002), L2(0.5), L2(4.0)]


def measured(budget, x, x_adv):
    change = (x_adv.double().numpy() - x.double().numpy()).reshape(len(x), -1)
    return np.abs(change).max(1) if isinstance(budget, Linf) else np.sqrt((change**2).sum(1))


def through_png(images):
    decoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[0].numpy()).save(buffer, "PNG")
        decoded.append(np.asarray(Image.open(io.BytesIO(buffer.getvalue()))))
    return torch.from_numpy(np.stack(decoded))[:, None]


def check(budget, result):
    x = pictures()
    sizes = measured(budget, x, result.x_adv)
    assert (sizes <= budget.eps + 1e-6).all(), f"{sizes.max()} > {budget.eps}"
    assert float(result.x_adv.min()) >= 0
    assert float(result.x_adv.max()) <= 1
    np.testing.assert_allclose(result.distance.numpy(), sizes, rtol=1e-5, atol=1e-7)
    decoded = through_png(result.eight_bit_images)
    assert decoded.dtype == torch.uint8
    on_disk = measured(budget, x, decoded.double() / 255)
    allowed = math.floor(255 * budget.eps + 1e-9) / 255 if isinstance(budget, Linf) else budget.eps
    assert (on_disk <= allowed + 1e-6).all(), f"{on_disk.max() * 255} > {allowed * 255} grey levels"
    return decoded


@pytest.mark.parametrize("case", every_pair(), ids=str)
def test_the_budget_holds_before_and_after_the_png_file(case):
    check(case.attack.budget, run(case, embedder(), seed=3))


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("case", [*loops(), restless()], ids=str)
def test_every_budget_holds_with_every_update_rule(case, budget):
    result = run(case.having(budget=budget), embedder(), seed=3)
    decoded = check(budget, result)
    if budget.eps >= 1 / 255:
        assert (decoded.double() / 255 - pictures().double()).abs().max() > 0, "nothing arrives in the file"


@pytest.mark.parametrize("budget", [Linf(8 / 255), L2(1.0)], ids=str)
def test_a_start_outside_the_box_is_brought_back(budget):
    attack = pgd(budget=budget, steps=1, step_size=1e-9, start="random", keep="last")
    check(budget, run(Case("", attack, OBJECTIVES["match"].example()), embedder()))


@pytest.mark.parametrize("case", every_part(), ids=str)
def test_the_eight_bit_result_is_measured_on_the_decoded_file(case):
    member = embedder()
    result = run(case, member, seed=3)
    saved = result.eight_bit(member, case.objective)
    decoded = through_png(result.eight_bit_images).float() / 255
    assert torch.equal(saved.x_adv, decoded)
    assert saved.is_eight_bit
    assert "after 8-bit rounding" in str(saved)
    torch.testing.assert_close(saved.loss, plain_loss(case, member, decoded), rtol=1e-5, atol=1e-6)
    assert torch.equal(saved.success, plain_success(case, member, decoded))
    np.testing.assert_allclose(saved.distance, measured(case.attack.budget, pictures(), decoded), rtol=1e-5, atol=1e-7)


def test_leaving_early_is_decided_on_the_eight_bit_picture():
    # Just above one grey level most of a float success is lost in the file: it must hold there before a picture leaves.
    member, target = embedder(), 1 - pictures().roll(1, 0)
    walk = pgd(budget=Linf(1.9 / 255), steps=30, step_size=0.2 / 255)
    plain = Case("", walk, Match(target=target))
    clean, best = plain_loss(plain, member, pictures()), run(plain, member).loss
    case = Case("", replace(walk, leave_on_success=True), Match(target=target, threshold=clean + 0.3 * (best - clean)))
    result = run(case, member)
    left = result.backwards < walk.steps
    assert left.all()
    # The threshold is reached by a float picture after a third of the way, by a saved one only after a whole level.
    assert (result.forwards > result.backwards + 2).all(), "every claim was confirmed at once: the test shows nothing"
    assert result.eight_bit(member, case.objective).success.all()


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.8)], ids=str)
@pytest.mark.parametrize("case", unreached(), ids=str)
def test_pictures_that_are_all_black_or_all_white_can_move(case, budget, level):
    x = torch.full((6, 1, SIDE, SIDE), level)
    member = embedder()
    result = run(case.having(budget=budget), member, x)
    assert (result.distance > 0.03).all()
    assert ((result.x_adv - x).abs().flatten(1) > 0).float().mean(1).min() > 0.1


@pytest.mark.parametrize("name", [case.name for case in every_part() if not case.is_loop])
def test_other_attacks_move_saturated_pictures_too(name):
    case = next(case for case in every_part() if case.name == name)
    for level in (0.0, 1.0):
        assert (run(case, embedder(), torch.full((6, 1, SIDE, SIDE), level)).distance > 0).all()


@pytest.mark.parametrize("budget", [Linf(0), L2(0)], ids=str)
@pytest.mark.parametrize("case", loops(), ids=str)
def test_without_a_budget_nothing_moves(case, budget):
    result = run(case.having(budget=budget), embedder(), seed=3)
    assert torch.equal(result.x_adv, pictures())


@pytest.mark.parametrize("objective", [entry.name for entry in OBJECTIVES])
@pytest.mark.parametrize("recipe", [pgd, apgd, mi_fgsm], ids=lambda recipe: recipe.__name__)
def test_more_budget_is_never_weaker_by_much(recipe, objective):
    case, member = Case("", recipe(budget=Linf(0.01), steps=10), OBJECTIVES[objective].example()), embedder()
    curve = []
    for eps in (0.01, 0.03, 0.1, 0.3):
        attack = recipe(budget=Linf(eps), steps=10)
        curve.append(run(replace(case, attack=attack), member).loss)
    steps = torch.stack(curve).diff(dim=0)
    spread = (curve[-1] - curve[0]).max()
    assert (steps >= -0.03 * spread).all(), f"a larger budget lost {steps.min()}"
    assert (curve[-1] > curve[0]).float().mean() > 0.5


def test_one_step_attacks_use_the_whole_budget():
    # An attack of one step must not be a no-op.
    case = Case("", fgsm(budget=Linf(0.1), keep="last"), OBJECTIVES["match"].example())
    x = torch.full((6, 1, SIDE, SIDE), 0.5)
    result = run(case, embedder(Net()), x)
    torch.testing.assert_close(result.distance, torch.full((6,), 0.1))


@pytest.mark.parametrize("budget", [Linf(8 / 255), L2(0.5)], ids=str)
@pytest.mark.parametrize("case", loops(), ids=str)
def test_eps_is_in_pixel_units_whatever_the_normalisation_of_each_channel(case, budget):
    # Steps taken in normalised units would reach eps times std, another number in every channel.
    x = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4)) * 0.6 + 0.2
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 5))
    found = []
    for std in ((0.1, 0.5, 2.0), (1.0, 1.0, 1.0)):
        member = embedder(module, channels=3, mean=(0.2, 0.5, 0.7), std=std)
        objective = Match(target=member(1 - x).detach())
        found.append(case.having(budget=budget, keep="last").attack(member, x, objective, tile=6))
        assert (measured(budget, x, found[-1].x_adv) <= budget.eps + 1e-6).all()
    if isinstance(budget, Linf):
        for result in found:
            reached = (result.x_adv - x).abs().amax((2, 3))
            torch.testing.assert_close(reached, torch.full((6, 3), budget.eps), atol=1e-6, rtol=0)
