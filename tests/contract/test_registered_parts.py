"""What every registered part must offer, so that lists, catalogue and this suite find it by themselves."""

from __future__ import annotations

import inspect

import pytest
import torch
from embattle_contract_bench import ROWS, Case, bound, embedder, every_pair, run

from embattle.attacks import ATTACKS, OBJECTIVES, UPDATES, AttackResult, Objective

ENTRIES = [*ATTACKS, *OBJECTIVES, *UPDATES]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}:{entry.name}")
def test_a_part_says_what_it_is_and_where_it_comes_from(entry):
    assert entry.summary.endswith((".", ")")) or len(entry.summary) > 10
    assert entry.paper, "paper= names paper and section"
    assert entry.name == entry.name.lower()
    assert " " not in entry.name
    assert type(entry.example()) is type(entry.example()), "example() builds a fresh instance"


@pytest.mark.parametrize("entry", [*ATTACKS, *OBJECTIVES], ids=lambda entry: f"{entry.kind}:{entry.name}")
def test_a_part_names_the_access_it_needs(entry):
    assert entry.access in ("gradient", "embedding", "none")


@pytest.mark.parametrize("entry", list(ATTACKS), ids=lambda entry: entry.name)
def test_attacks_share_one_signature(entry):
    parameters = list(inspect.signature(entry.example().__call__).parameters.values())
    assert [p.name for p in parameters[1:3]] == ["x", "objective"]
    keyword_only = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keyword_only["seed"] == 0
    assert keyword_only["ids"] is None
    assert keyword_only["groups"] is None


@pytest.mark.parametrize("entry", list(OBJECTIVES), ids=lambda entry: entry.name)
def test_objectives_speak_the_protocol(entry):
    objective, member = entry.example(), embedder()
    assert isinstance(objective, Objective)
    (whole,) = bound(Case("", None, objective), member)
    assert whole.count == ROWS, "examples have six rows"
    assert whole.fingerprint == member.fingerprint
    constants = whole.prepare(torch.tensor([4, 1]))
    assert all(len(value) == 2 for value in constants.values())


@pytest.mark.parametrize("case", every_pair(), ids=str)
def test_every_attack_runs_with_every_objective_and_reports_in_full(case):
    result = run(case, embedder(), seed=1)
    assert isinstance(result, AttackResult)
    assert result.x_adv.shape == (ROWS, 1, 8, 8)
    assert torch.isfinite(result.loss).all()
    assert not result.x_adv.requires_grad
    assert float(result.x_adv.min()) >= 0
    assert float(result.x_adv.max()) <= 1
    assert set(result.status) <= {"success", "budget_spent", "zero_gradient", "failed", "scored"}
    assert (result.forwards >= 1).all()
    assert result.seconds > 0
    rows = list(result.records())
    assert [row["sample"] for row in rows] == list(result.ids)
    assert all(isinstance(row["forwards"], int) and isinstance(row["loss"], float) for row in rows)
    assert "forwards each" in str(result)
