"""Modes, parameters, gradients, buffers, hooks and global random states are as they were, also when an exception passes."""

from __future__ import annotations

import pytest
import torch
from embattle_contract_bench import Net, Spied, bound, embedder, every_part, pictures, restless, run, untouched

from embattle.attacks import OBJECTIVES, pgd
from embattle.budget import Linf
from embattle.errors import ConfigError, PixelError


@pytest.mark.parametrize("case", [*every_part(), restless()], ids=str)
def test_an_attack_leaves_no_trace(case):
    member = embedder()
    with untouched(member.module):
        result = run(case, member, seed=1)
        result.eight_bit(member, case.objective)


@pytest.mark.parametrize("fail_at", [0, 1, 3])
@pytest.mark.parametrize("case", [*every_part(), restless()], ids=str)
def test_an_exception_leaves_no_trace(case, fail_at):
    module = Spied(Net(), fail_at=fail_at)
    member = embedder(module)
    with untouched(module), pytest.raises(RuntimeError, match="the network broke down"):
        run(case, member, seed=1, tile=2)


@pytest.mark.parametrize("entry", list(OBJECTIVES), ids=lambda entry: entry.name)
def test_binding_leaves_no_trace(entry):
    module = Spied(Net(), fail_at=0)
    with untouched(module):
        entry.example().bind(embedder(module))
    module.arm()
    with untouched(module), pytest.raises(RuntimeError, match="the network broke down"):
        entry.example().bind(embedder(module))


def test_the_guard_sees_what_it_guards():
    module = Net()
    changes = [
        lambda: module.conv.train(False),
        lambda: module.last.bias.requires_grad_(True),
        lambda: module.norm.running_mean.add_(1),
        lambda: module.conv.register_forward_hook(lambda *_: None),
        lambda: torch.rand(1),
        lambda: setattr(module.last.weight, "grad", torch.ones_like(module.last.weight)),
        lambda: module.conv.weight.grad.add_(1),
    ]
    for change in changes:
        with pytest.raises(AssertionError, match="changed"), untouched(module):
            change()


def test_frozen_is_re_entrant():
    member = embedder()
    with untouched(member.module):
        with member.frozen():
            assert not any(m.training for m in member.module.modules())
            with member.frozen():
                pass
            assert not any(m.training for m in member.module.modules()), "the inner exit thawed the model"
            assert not any(p.requires_grad for p in member.module.parameters())
            with pytest.raises(ValueError, match="inside"), member.frozen():
                raise ValueError("inside")
            assert not any(m.training for m in member.module.modules())
        assert member.module.training


def test_a_mode_changed_between_two_attacks_is_respected():
    # torchattacks restored the mode that the model had when the attack was made.
    case, member = restless(), embedder()
    run(case, member)
    member.module.eval()
    with untouched(member.module):
        run(case, member)
    assert not member.module.training


def test_training_mode_does_not_change_the_result():
    case = restless()
    member, calm = embedder(), embedder()
    calm.module.eval()
    assert torch.equal(run(case, member).x_adv, run(case, calm).x_adv)


@pytest.mark.parametrize("case", every_part(), ids=str)
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (pictures() * 255, r"\[0, 255\].*divide by 255"),
        ((pictures() - 0.3) / 0.5, r"\[-0\.6, 1\.4\].*normalised already"),
        (pictures() * float("nan"), "NaN"),
        ((pictures() * 255).to(torch.uint8), r"float\(\) / 255"),
        (pictures()[0], r"\(N, C, H, W\)"),
        (pictures()[:0], "at least one"),
        (pictures().expand(-1, 3, -1, -1), r"1 channel\(s\).*3"),
    ],
    ids=["grey levels", "normalised", "nan", "uint8", "one picture", "no picture", "three channels"],
)
def test_unusable_pictures_are_refused_with_the_measured_range(case, x, sentence):
    member = embedder()
    with pytest.raises(PixelError, match=sentence):
        case.attack(member, x, bound(case, member))


def test_rounding_noise_around_the_range_is_clamped():
    case, member = restless(), embedder()
    noisy = pictures() * (1 + 5e-7)
    noisy[noisy == 0] = -5e-7
    result = run(case, member, noisy)
    assert float(result.clean.min()) == 0.0
    assert float(result.clean.max()) == 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ids": ["only one"]}, r"1 id\(s\) for 6 picture"),
        ({"groups": [0, 1]}, r"2 group number\(s\) for 6 picture"),
        ({"tile": 0}, "at least 1"),
        ({"tiles_in_flight": 0}, "at least 1"),
    ],
)
def test_arguments_that_do_not_fit_the_pictures_are_refused(arguments, sentence):
    case, member = restless(), embedder()
    with pytest.raises(ConfigError, match=sentence):
        case.attack(member, pictures(), bound(case, member), **arguments)


def test_targets_that_do_not_fit_are_refused():
    case, member = restless(), embedder()
    with pytest.raises(ConfigError, match=r"6 row\(s\), there are 5 picture"):
        case.attack(member, pictures()[:5], case.objective)
    other = Net()
    with torch.no_grad():
        other.last.weight.add_(1)
    with pytest.raises(ConfigError, match="bound to another model"):
        case.attack(member, pictures(), bound(case, embedder(other)))
    with pytest.raises(ConfigError, match=r"2 bound objective\(s\) for 1 member"):
        case.attack(member, pictures(), bound(case, member) * 2)


def test_a_model_without_gradients_cannot_be_a_surrogate():
    member = embedder(name="remote")
    member.access = "embedding"
    with pytest.raises(ValueError, match="remote gives no gradients; attack another surrogate"):
        pgd(budget=Linf(0.1))(member, pictures(), OBJECTIVES["match"].example())
