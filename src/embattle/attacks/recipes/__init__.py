"""Attacks by the names people know: each a combination of parts; one file per family, found by the registry."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

from embattle.attacks.loop import Attack
from embattle.budget import Budget
from embattle.errors import BudgetError, ConfigError
from embattle.registry import Registry

ATTACKS: Registry = Registry("attack", "embattle.attacks.recipes")

Settings = ParamSpec("Settings")
# What a recipe stands for: it sets these itself, or takes them under its own name.
_FIXED = {"budget", "update", "steps"}


def recipe(build: Callable[Settings, Attack]) -> Callable[Settings, Attack]:
    """Decorator of a factory in this package: says what it takes to whoever gives it something else.

    Raises:
        BudgetError: from the factory, for a budget that is none, such as a bare number.
        ConfigError: from the factory, for settings that it does not have.
    """
    parameters = inspect.signature(build).parameters.values()
    allowed = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        allowed |= {field.name for field in dataclasses.fields(Attack)} - _FIXED

    @functools.wraps(build)
    def checked(*args: Settings.args, **given: Settings.kwargs) -> Attack:
        if args:
            raise ConfigError(f"{build.__name__} takes its settings by name; write {build.__name__}(budget=Linf(8/255))")
        _check(build.__name__, given, allowed)
        return build(*args, **given)

    return checked


def _check(name: str, given: dict[str, Any], allowed: set[str]) -> None:
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise ConfigError(f"{name} has no setting {key!r}{hint} it has: {', '.join(sorted(allowed))}")
    budget = given.get("budget")
    if not isinstance(budget, Budget):
        was = repr(budget) if "budget" in given else "missing"
        raise BudgetError(f"the budget of {name} is {was}; write budget=Linf(8/255) or budget=L2(0.5)")
