"""Everything that has a name, by kind, for `embattle list` and `embattle show`."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from embattle.errors import ConfigError
from embattle.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of parts: where its registry is, and how a part is used, under the name that was asked for.

    `details` describes a part whose call and docstring say too little; `marks` are further columns of its list.
    """

    home: str
    registry: str
    example: Callable[[Entry, str], str]
    details: Callable[[Entry], str] | None = None
    marks: Callable[[Entry], Mapping[str, str]] | None = None

    def entries(self) -> Registry:
        """Its parts."""
        registry: Registry = getattr(importlib.import_module(self.home), self.registry)
        return registry


def _attack(entry: Entry, asked: str) -> str:
    shared = " --only i-ca+" if getattr(entry.example(), "shared", False) else ""
    return f"embattle audit --attack {entry.name}{shared}"


def _call(entry: Entry, asked: str) -> str:
    """The part built in Python, with the arguments it must be given."""
    parameters = inspect.signature(entry.build).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    call = f"{entry.build.__qualname__}({', '.join(f'{name}=...' for name in wanted)})"
    return f"from {entry.build.__module__} import {entry.build.__qualname__}; {call}"


def _scenario(entry: Entry, asked: str) -> str:
    return f"embattle audit --only {asked if '.' in asked else entry.build().name}"


def _network(entry: Entry, asked: str) -> str:
    return f"embattle train --network {entry.name} --out {entry.name}.safetensors"


def _loss(entry: Entry, asked: str) -> str:
    return f"embattle train --loss {entry.name} --out {entry.name}.safetensors"


def _defense(entry: Entry, asked: str) -> str:
    return f"embattle harden --defense {entry.name}"


def _data(entry: Entry, asked: str) -> str:
    return f"embattle audit --data {entry.name}"


def _protocol(entry: Entry, asked: str) -> str:
    return f"embattle reproduce {entry.name} --scale smoke"


def _experiment(entry: Entry) -> str:
    from embattle.cli.experiment import experiment  # not for the help of `list`

    return experiment(entry)


def _defensive(entry: Entry) -> str:
    from embattle.cli.defensive import defensive

    return defensive(entry)


def _labels(entry: Entry) -> Mapping[str, str]:
    from embattle.cli.defensive import labels

    return labels(entry)


def _model(entry: Entry, asked: str) -> str:
    rest = {"checkpoint": "model.safetensors", "module": "package.module:factory"}.get(entry.name, "PATH")
    return f"embattle audit --data FOLDER --model {entry.name}:{rest}"


KINDS: Mapping[str, Kind] = {
    "attacks": Kind(home="embattle.attacks", registry="ATTACKS", example=_attack),
    "objectives": Kind(home="embattle.attacks", registry="OBJECTIVES", example=_call),
    "updates": Kind(home="embattle.attacks", registry="UPDATES", example=_call),
    "scenarios": Kind(home="embattle.audit", registry="SCENARIOS", example=_scenario),
    "networks": Kind(home="embattle.networks", registry="NETWORKS", example=_network),
    "losses": Kind(home="embattle.training.losses", registry="LOSSES", example=_loss),
    "defenses": Kind(home="embattle.defenses", registry="DEFENSES", example=_defense, details=_defensive, marks=_labels),
    "datasets": Kind(home="embattle.data", registry="DATASETS", example=_data),
    "protocols": Kind(home="embattle.protocols", registry="PROTOCOLS", example=_protocol, details=_experiment),
    "models": Kind(home="embattle.embedders", registry="ADAPTERS", example=_model),
}


def kind(name: str) -> Kind:
    """The kind called `name`.

    Raises:
        ConfigError: no such kind.
    """
    if name in KINDS:
        return KINDS[name]
    near = difflib.get_close_matches(name, KINDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ";"
    raise ConfigError(f"there is no kind of parts called {name!r}{hint} write one of {', '.join(KINDS)}")


def find(name: str) -> list[tuple[str, Entry]]:
    """Every part called `name` with the name of its kind; a scenario also answers to its name with a width ("ca+.w5").

    Raises:
        ConfigError: no part has that name; the message has the nearest ones.
    """
    found = [(label, entry) for label, group in KINDS.items() for entry in group.entries() if entry.name == name]
    if found:
        return found
    family, dot, _ = name.rpartition(".")
    if dot and family in (scenarios := KINDS["scenarios"].entries()):
        from embattle.scenarios.scenario import named

        named(name)
        return [("scenarios", scenarios[family])]
    known = {entry.name for group in KINDS.values() for entry in group.entries()}
    near = difflib.get_close_matches(name, sorted(known), n=4, cutoff=0.4)
    hint = f"the nearest names are {', '.join(near)}" if near else "see all names with: embattle list"
    raise ConfigError(f"nothing is called {name!r}; {hint}")
