"""bfloat16 gradient steps keep the contract: everything that is reported is float32, and costs are counted."""

from __future__ import annotations

import pytest
import torch
from embattle_contract_bench import (
    IDS,
    ROWS,
    Net,
    Spied,
    embedder,
    every_part,
    pictures,
    plain_loss,
    plain_success,
    restless,
    run,
    same,
    staggered,
    unreached,
    untouched,
    without_criterion,
)
from torch import nn

from embattle.attacks import Attack, pgd
from embattle.attacks.objectives import Match
from embattle.budget import Linf
from embattle.embedders import Embedder
from embattle.errors import ConfigError, ModelError

ORDER = [4, 0, 5, 2, 1, 3]


def halves(cases):
    return [case.having(precision="bfloat16") for case in cases if case.is_loop]


class Watched(nn.Module):
    """Remembers, beyond copies of itself, in which precision and mode its layers worked."""

    def __init__(self, seen):
        super().__init__()
        self.inner, self.seen = Net(), [seen]

    def __deepcopy__(self, memo):
        copy = Watched(self.seen[0])
        copy.load_state_dict(self.state_dict())
        return copy.bfloat16()

    def forward(self, x):
        self.seen[0].append((x.dtype, x.requires_grad, self.inner.drop.training))
        return self.inner(x)


@pytest.mark.parametrize("case", halves([*every_part(), restless(), restless("shift")]), ids=str)
def test_company_order_and_flight_change_nothing_to_the_bit(case):
    member = embedder()
    together = run(case, member, seed=5, tile=2)
    same(together, run(case, member, seed=5, tile=2, tiles_in_flight=9))
    same(together, run(case, member, seed=5, tile=2, rows=ORDER), rows=ORDER)
    for row in (0, 3):
        same(together, run(case, member, seed=5, tile=2, rows=[row]), rows=[row])


@pytest.mark.parametrize("case", halves(staggered()), ids=str)
def test_refill_equals_no_refill_where_successes_leave(case):
    eager, member = case.having(leave_on_success=True, restarts=2), embedder()
    small = run(eager, member, seed=2, tile=2)
    same(small, run(eager, member, seed=2, tile=2, tiles_in_flight=20))
    assert len(set(small.backwards.tolist())) >= 3, "nearly all left at the same step: the test shows nothing"


@pytest.mark.parametrize("case", halves([*every_part(), restless()]), ids=str)
def test_loss_and_success_are_those_of_the_model_itself(case):
    member = embedder()
    with untouched(member.module):
        result = run(case, member, seed=6)
    torch.testing.assert_close(result.loss, plain_loss(case, member, result.x_adv), rtol=1e-6, atol=1e-6)
    assert torch.equal(result.success, plain_success(case, member, result.x_adv))
    assert (result.distance <= case.attack.budget.eps + 1e-6).all()


@pytest.mark.parametrize("case", halves(unreached()), ids=str)
def test_its_steps_are_worth_nearly_as_much(case):
    case, member = without_criterion(case), embedder()
    clean = plain_loss(case, member, pictures())
    exact = run(case.having(precision="float32"), member, seed=6).loss - clean
    rounded = run(case, member, seed=6).loss - clean
    assert (rounded >= 0.9 * exact).all(), f"{rounded} against {exact}"


@pytest.mark.parametrize("restarts", [1, 3])
def test_the_float32_score_is_counted(restarts):
    case = restless().having(precision="bfloat16", start="clean", restarts=restarts)
    result = run(case, embedder(), seed=1)
    assert result.forwards.tolist() == [restarts * (case.attack.steps + 2)] * ROWS
    assert result.backwards.tolist() == [restarts * case.attack.steps] * ROWS


def test_steps_run_in_bfloat16_and_the_score_in_float32():
    seen = []
    member = embedder(Watched(seen))
    whole = Match(target=pictures().flip(0)).bind(member)
    seen.clear()
    steps = 3
    pgd(budget=Linf(0.1), steps=steps, precision="bfloat16")(member, pictures(), [whole], ids=IDS, tile=ROWS)
    assert [dtype for dtype, _, _ in seen[-(steps + 2) :]] == [torch.bfloat16] * (steps + 1) + [torch.float32]
    assert not any(training for _, _, training in seen)


@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_an_exception_leaves_no_trace(fail_at):
    module = Spied(Net(), fail_at=fail_at)
    with untouched(module), pytest.raises((RuntimeError, ModelError), match="the network broke down"):
        run(restless().having(precision="bfloat16"), embedder(module), seed=1, tile=2)


def test_shared_perturbations_are_scored_with_the_perturbation_that_is_returned():
    case, member = restless().having(precision="bfloat16"), embedder()
    result = run(case, member, seed=2, tile=2, groups=[0, 1, 0, 1, 1, 0])
    torch.testing.assert_close(result.loss, plain_loss(case, member, result.x_adv), rtol=1e-6, atol=1e-6)
    for row, group in enumerate([0, 1, 0, 1, 1, 0]):
        assert torch.equal(result.x_adv[row], (pictures()[row] + result.perturbation[group]).clamp(0, 1))


class Float32Inside(nn.Module):
    """A model that casts to float32 on its way, as some do to be safe, and then meets its own weights."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 8)

    def forward(self, x):
        return self.last(x.flatten(1).float())


class Uncopied(Net):
    def __deepcopy__(self, memo):
        raise TypeError("holds a socket")


@pytest.mark.parametrize(("module", "reason"), [(Float32Inside(), "dtype"), (Uncopied(), "holds a socket")])
def test_a_model_that_cannot_is_refused_with_the_reason(module, reason):
    member = embedder(module, name="stranger")
    attack = pgd(budget=Linf(0.1), steps=2, precision="bfloat16")
    with pytest.raises(ModelError, match=f"stranger does not run in bfloat16 .*{reason}.*leave out precision"):
        attack(member, pictures(), Match(target=pictures()))


def test_other_surrogates_and_other_precisions_are_refused():
    class Edited:
        def __init__(self, member):
            self.members, self.weights, self.stochastic, self.opened = (member,), (1.0,), False, member.opened

    attack = pgd(budget=Linf(0.1), steps=2, precision="bfloat16")
    with pytest.raises(ConfigError, match="works on an Embedder, not on a Edited"):
        attack(Edited(embedder()), pictures(), Match(target=pictures()))
    with pytest.raises(ConfigError, match="precision must be 'float32' or 'bfloat16', not 'float16'"):
        Attack(budget=Linf(0.1), update=attack.update, steps=1, precision="float16")


def test_pictures_are_prepared_in_float32():
    # In bfloat16, 0.5 + 1/512 is 0.5: after subtracting the mean in that precision nothing would be left of a picture.
    seen = []

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

        def forward(self, x):
            seen.append(x)
            return x.flatten(1) * self.scale

    x = torch.full((1, 1, 2, 2), 0.5 + 1 / 512)
    Embedder(Flat(), channels=1, mean=(0.5,), std=(0.25,))(x)
    assert seen[0].dtype == torch.bfloat16
    torch.testing.assert_close(seen[0].float(), torch.full((1, 1, 2, 2), 4 / 512))
