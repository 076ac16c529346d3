"""What people write instead of a budget, an embedder, an objective or a setting: a sentence says what to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import embattle as eb
from embattle.attacks import ATTACKS
from embattle.errors import BudgetError, ConfigError, InputError


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def embedder() -> eb.Embedder:
    return eb.Embedder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)))


@pytest.mark.parametrize("entry", ATTACKS, ids=lambda entry: entry.name)
def test_every_factory_says_what_it_takes(entry) -> None:
    for given in ({"budget": 8 / 255}, {"budget": None}, {"budget": eb.Linf}, {}):
        with pytest.raises(BudgetError, match=r"write budget=Linf\(8/255\)"):
            entry.build(**given)
    with pytest.raises(ConfigError, match="by name"):
        entry.build(eb.Linf(0.1))
    with pytest.raises(ConfigError, match=r"no setting 'restart'; did you mean restarts\? it has: .*budget.*restarts"):
        entry.build(budget=eb.Linf(0.1), restart=2)
    assert entry.build(budget=eb.Linf(0.1), restarts=2).restarts == 2


def test_what_a_recipe_fixes_is_no_setting() -> None:
    with pytest.raises(ConfigError, match="fgsm has no setting 'steps'"):
        eb.attacks.fgsm(budget=eb.Linf(0.1), steps=3)
    with pytest.raises(ConfigError, match="pgd has no setting 'update'"):
        eb.attacks.pgd(budget=eb.Linf(0.1), update=None)


def test_a_bare_module_is_no_embedder(x: torch.Tensor, embedder: eb.Embedder) -> None:
    attack = eb.attacks.pgd(budget=eb.Linf(0.1), steps=1)
    for given, named in ((embedder.module, "a Sequential"), (eb.Embedder, "the class Embedder"), (None, "a NoneType")):
        with pytest.raises(ConfigError, match=rf"not {named}; wrap a module: Embedder\(module"):
            attack(given, x, eb.objectives.Shift(anchor=x))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda x: eb.objectives.Shift, "the class Shift"),
        (lambda x: None, "a NoneType"),
        (lambda x: x, "a Tensor"),
        (lambda x: "shift", "a str"),
        (lambda x: [eb.objectives.Shift(anchor=x)], "a Shift"),
    ],
)
def test_no_objective(x: torch.Tensor, embedder: eb.Embedder, make: Callable[[torch.Tensor], object], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"not {named}: build one, such as Shift\(anchor=x\)"):
        eb.attacks.pgd(budget=eb.Linf(0.1), steps=1)(embedder, x, make(x))


def test_bound_objectives_stay_allowed(x: torch.Tensor, embedder: eb.Embedder) -> None:
    bound = eb.objectives.Shift(anchor=x).bind(embedder)
    attack = eb.attacks.pgd(budget=eb.Linf(0.1), steps=1)
    one, several = attack(embedder, x, bound), attack(embedder, x, (bound,))
    assert torch.equal(one.x_adv, several.x_adv)


@pytest.mark.parametrize("what", ["mean", "std"])
def test_grey_levels_as_normalisation(what: str) -> None:
    with pytest.raises(
        InputError, match=rf"{what} is in units of \[0, 1\], and 123.7, 0.4, 1 look like 0..255; divide by 255"
    ):
        eb.Embedder(torch.nn.Flatten(), **{what: (123.7, 0.4, 1.0)})
    assert eb.Embedder(torch.nn.Flatten(), **{what: (1.0, 0.4, 1.0)}).channels == 3
