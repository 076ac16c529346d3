"""What cannot be meant is refused before a step is made, in a sentence with what was given and what is allowed."""

from __future__ import annotations

import pytest
import torch
from embattle_contract_bench import ROWS, embedder, pictures

from embattle.attacks import Attack, apgd, fgsm, mi_fgsm, pgd
from embattle.attacks.objectives import Avoid, CandidateRank, Match, QueryRank, Shift
from embattle.attacks.updates.adaptive import Adaptive
from embattle.attacks.updates.momentum import Momentum
from embattle.attacks.updates.steepest import Steepest
from embattle.budget import Linf
from embattle.errors import BudgetError, ConfigError, InputError

BUDGET, D, M = Linf(0.1), 8, 5


@pytest.mark.parametrize("recipe", [pgd, mi_fgsm, apgd])
@pytest.mark.parametrize("steps", [0, -1, 2.5, "10", True])
def test_steps_that_cannot_be_made(recipe, steps):
    with pytest.raises(BudgetError, match="steps must be a whole number of at least 1, not"):
        recipe(budget=BUDGET, steps=steps)


@pytest.mark.parametrize(
    ("parts", "error", "sentence"),
    [
        ({"restarts": 0}, BudgetError, "restarts must be a whole number of at least 1, not 0"),
        ({"keep": "first"}, ConfigError, "keep must be 'best' or 'last', not 'first'"),
        ({"start": "noise"}, ConfigError, "start must be 'clean', 'random' or 'nudge', not 'noise'"),
    ],
)
def test_parts_that_do_not_exist(parts, error, sentence):
    with pytest.raises(error, match=sentence):
        fgsm(budget=BUDGET, **parts)


@pytest.mark.parametrize("size", [0, -0.1, float("nan"), float("inf")])
def test_step_sizes_that_cannot_be_walked(size):
    for build in (Steepest, Momentum):
        with pytest.raises(BudgetError, match="step_size must be a finite number above 0"):
            build(step_size=size)
    with pytest.raises(BudgetError, match="step_size"):
        pgd(budget=BUDGET, step_size=size)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Momentum(step_size=0.1, decay=1.5), "decay must lie in"),
        (lambda: Momentum(step_size=0.1, norm="l3"), "norm must be 'l1' or 'l2', not 'l3'"),
        (lambda: Adaptive(first=0), "first is the first step as a multiple of ε"),
        (lambda: Adaptive(first=float("nan")), "first is the first step as a multiple of ε"),
        (lambda: Adaptive(rho=1.5), "rho and momentum must lie in"),
        (lambda: Adaptive(momentum=0), "rho and momentum must lie in"),
        (lambda: pgd(budget=BUDGET, rule="ranking", steps=3), "sets steps and step_size itself"),
        (lambda: pgd(budget=BUDGET, rule="rank"), "the step rule 'rank' is not known; write rule='ranking'"),
    ],
)
def test_rules_that_make_no_sense(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()


def refuse(objective, sentence, error=ConfigError):
    # A model that nobody has asked yet, so that nothing is known of its embeddings.
    attack = Attack(budget=BUDGET, update=Steepest(step_size=0.1), steps=1)
    with pytest.raises(error, match=sentence):
        attack(embedder(), pictures(), objective)


@pytest.mark.parametrize("length", [1, 5, 9])
def test_embeddings_of_another_model(length):
    # One number would be broadcast over all eight, silently.
    sentence = rf"embeddings of {length} numbers, Net gives 8; embed them with the attacked model"
    mine, foreign = torch.rand(ROWS, D), torch.rand(ROWS, length)
    for kind, name in ((Match, "target"), (Avoid, "target"), (Shift, "anchor")):
        refuse(kind(**{name: foreign}), name + " holds " + sentence)
    refuse(CandidateRank(queries=foreign, gallery=torch.rand(M, D)), sentence)
    refuse(CandidateRank(queries=mine, gallery=torch.rand(M, length)), sentence)
    refuse(QueryRank(candidates=foreign, gallery=torch.rand(M, D)), sentence)
    refuse(QueryRank(candidates=mine, gallery=torch.rand(M, D), preserve=foreign), sentence)


@pytest.mark.parametrize("target", [torch.rand(ROWS, 2, D), torch.rand(ROWS, 2, 1, 8, 8)], ids=["embeddings", "pictures"])
def test_several_targets_where_one_is_meant(target):
    for kind, name in ((Match, "target"), (Avoid, "target"), (Shift, "anchor")):
        refuse(kind(**{name: target}), f"{name} has 2 targets per row; this objective takes one")


def test_shapes_that_are_neither_pictures_nor_embeddings():
    refuse(Match(target=torch.rand(ROWS)), r"target must be pictures .* not a tensor of shape \(6,\)")
    refuse(CandidateRank(queries=torch.rand(ROWS, D), gallery=torch.rand(M, 2, D)), r"gallery must be \(M, D\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite(value):
    broken = torch.rand(ROWS, D)
    broken[2, 3] = value
    refuse(Match(target=broken), r"target has 1 NaN or infinite value\(s\)", InputError)
    refuse(CandidateRank(queries=torch.rand(ROWS, D), gallery=broken), "gallery has 1 NaN", InputError)


@pytest.mark.parametrize("k", [0, -1, M + 1])
@pytest.mark.parametrize("kind", [CandidateRank, QueryRank])
def test_a_first_page_longer_than_the_gallery(kind, k):
    name = "queries" if kind is CandidateRank else "candidates"
    refuse(kind(**{name: torch.rand(ROWS, D)}, gallery=torch.rand(M, D), k=k), rf"k = {k} does not fit a gallery of 5")
    # The left-out copy does not count.
    own = torch.zeros(ROWS, dtype=torch.long)
    refuse(kind(**{name: torch.rand(ROWS, D)}, gallery=torch.rand(M, D), k=M, own=own), "does not fit a gallery of 4")


@pytest.mark.parametrize("kind", [CandidateRank, QueryRank])
@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (torch.zeros(ROWS - 1, dtype=torch.long), "own must be 6 whole gallery positions"),
        (torch.zeros(ROWS), "own must be 6 whole gallery positions"),
        (torch.full((ROWS,), M), "outside the gallery of 5"),
        (torch.full((ROWS,), -1), "outside the gallery of 5"),
    ],
)
def test_own_copies_that_are_nowhere(kind, own, sentence):
    name = "queries" if kind is CandidateRank else "candidates"
    refuse(kind(**{name: torch.rand(ROWS, D)}, gallery=torch.rand(M, D), own=own), sentence)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda e: CandidateRank(queries=e, gallery=e, direction="up"), "direction must be 'raise'.*not 'up'"),
        (lambda e: QueryRank(candidates=e, gallery=e, direction="up"), "direction must be 'raise'"),
        (lambda e: QueryRank(candidates=e, gallery=e, xi=-1.0), "xi must be a finite number of at least 0, not -1.0"),
        (lambda e: QueryRank(candidates=e, gallery=e, xi=float("nan")), "xi must be a finite number"),
        (lambda e: QueryRank(candidates=e, gallery=e, preserve=e[:2]), r"preserve has 2 row\(s\), candidates 6"),
    ],
)
def test_objectives_that_make_no_sense(build, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(torch.rand(ROWS, D))


@pytest.mark.parametrize("kind", [Match, Avoid, Shift])
def test_thresholds_are_one_number_or_one_per_row(kind):
    name = "anchor" if kind is Shift else "target"
    refuse(kind(**{name: torch.rand(ROWS, D)}, threshold=torch.rand(ROWS - 1)), "threshold must be one number or 6 numbers")
    each = kind(**{name: pictures()}, threshold=torch.tensor([-2.0, 2.0] * 3))
    found = fgsm(budget=BUDGET)(embedder(), pictures(), each).success.tolist()
    assert found == ([True, False] * 3 if kind is Match else [False, True] * 3)
