"""What an audit is: every setting that changes a number in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from embattle.attacks import ATTACKS
from embattle.attacks.precision import Precision
from embattle.errors import ConfigError
from embattle.records.numerals import check_eps, pixel_units
from embattle.scenarios.scenario import named

DEFAULT_SCENARIOS = ("ca+.w1", "ca-.w1", "sp-qa+.m1", "sp-qa-.m1", "shift", "class")
DEFAULT_EPS = (0.01, 0.03, 0.1, 0.3)
SUITES: Mapping[str, Mapping[str, Any]] = {
    "ers": {
        "scenarios": (
            "ca+.w1", "ca-.w1", "qa+.m1", "qa-.m1", "tma", "es", "ltm", "gtm", "gtt", "ltm-legacy", "gtm-legacy",
        ),
        "eps": (77 / 255,), "attack": "pgd", "steps": 32, "step_size": 3 / 255,
    },
}  # fmt: skip
"""Settings by the name of a suite. They are of 28 x 28 pictures; for photographs the published ones have ε = 8/255."""
_OF_AN_ATTACK = ("attack", "steps", "step_size")
# Settings that came later are recorded only where they are used: a run of an earlier version keeps its hash.
_LATER = ("suite", "step_size", "targets")
_PLACES = {name: place for place, name in enumerate(DEFAULT_SCENARIOS)}


class AuditConfig(BaseModel):
    """Settings of an audit.

    Args:
        suite: "ers" sets scenarios, eps, attack, steps and step_size as the empirical robustness score has them, and looks
            for masked gradients; settings given beside it win. Another attack or a rule keeps its own steps, another
            number of steps its own step size.
        scenarios: what the attacker tries: names of `SCENARIOS` with their width, such as "ca+.w1" or "sp-qa-.m10".
        eps: Linf budgets in pixel units of [0, 1], without 0, which is always measured; numbers, or texts with a decimal or
            a fraction such as "8/255", one of them or several.
        attack: a name of `ATTACKS`.
        steps: gradient steps of the attack; None: its own default.
        step_size: α of the attack in pixel units of [0, 1], a number or a text such as "3/255"; None: its own default.
        rule: step rule of pgd; "ranking" is the ranking paper's.
        precision: of the gradient steps, "float32" or "bfloat16"; what is measured is float32 either way.
        attacked: how many pictures are attacked for each scenario and ε; of a universal scenario, how many a perturbation
            is learnt from, and on how many others it is judged.
        targets: how many random targets a universal scenario learns a perturbation for.
        k: length of the first page of a list.
        own: whether an attacked item's own clean copy stays in the gallery ("kept", the paper's) or not ("replaced").
        preserve: how many neighbours a semantics-preserving query attack keeps (G).
        xi: weight of keeping them; None: the paper's 1 (raise) and 100 (lower).
        findings: how many examples with pictures are kept for each scenario and ε.
        seed: of the choice of pictures and targets, and of the attacks.
        tile: physical batch size of the attack loop.
        shard: pictures a unit: where an interrupted run goes on. Examples are kept of a cell's first shard; figures do not
            depend on it.

    Raises:
        ConfigError: from `parse`, for an unknown key or a value outside these ranges.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    # What a message calls these settings.
    noun: ClassVar[str] = "audit"

    suite: Literal["", "ers"] = ""
    scenarios: tuple[str, ...] = DEFAULT_SCENARIOS
    eps: tuple[float, ...] = DEFAULT_EPS
    attack: str = "apgd"
    steps: int | None = Field(default=None, ge=1)
    step_size: float | None = Field(default=None, gt=0, le=1)
    rule: Literal["", "ranking"] = ""
    precision: Precision = "float32"
    attacked: int = Field(default=96, ge=1)
    targets: int = Field(default=5, ge=1)
    k: int = Field(default=10, ge=1)
    own: Literal["kept", "replaced"] = "kept"
    preserve: int = Field(default=5, ge=0)
    xi: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    findings: int = Field(default=2, ge=0)
    seed: int = Field(default=0, ge=0)
    tile: int = Field(default=32, ge=1)
    shard: int = Field(default=96, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: Any) -> Any:
        """What a suite sets, and over it what was given beside it."""
        suite = SUITES.get(str(given.get("suite", ""))) if isinstance(given, Mapping) else None
        if suite is None:
            return given
        own_steps = bool(given.get("rule")) or given.get("attack", suite["attack"]) != suite["attack"]
        preset = {key: value for key, value in suite.items() if not (own_steps and key in _OF_AN_ATTACK)}
        if own_steps and "attack" not in given:
            preset["attack"] = suite["attack"]
        if given.get("steps", suite["steps"]) != suite["steps"]:
            # Few steps of the suite's size would not reach ε, and a weak attack gives a high score.
            preset.pop("step_size", None)
        return {**preset, **given}

    @field_validator("step_size", mode="before")
    @classmethod
    def _size(cls, size: Any) -> Any:
        return pixel_units(size, "step_size")

    @field_validator("eps", mode="before")
    @classmethod
    def _read(cls, eps: Any) -> Any:
        """A configuration file and a flag say the same in the same words."""
        given = [eps] if isinstance(eps, str | int | float) else eps
        if not isinstance(given, list | tuple):
            return given
        words = [word for each in given for word in (each.split(",") if isinstance(each, str) else [each])]
        return tuple(pixel_units(word, "eps") for word in words)

    @field_validator("eps")
    @classmethod
    def _budgets(cls, eps: tuple[float, ...]) -> tuple[float, ...]:
        if not eps:
            raise ConfigError("no ε to test; give at least one, for example --eps 0.03")
        for value in eps:
            check_eps(value)
        return tuple(sorted(set(eps)))

    @field_validator("attack")
    @classmethod
    def _attack(cls, name: str) -> str:
        return ATTACKS[name].name

    @field_validator("scenarios")
    @classmethod
    def _scenarios(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ConfigError("no scenario to test; give at least one, for example --only ca+.w1")
        # "ca+" and "ca+.w1" are the same scenario: under two names it would be counted twice. One order, so that two
        # commands that name the same scenarios are one run.
        found = {named(name).name for name in names}
        return tuple(sorted(found, key=lambda name: (_PLACES.get(name, len(_PLACES)), name)))

    @property
    def departures(self) -> dict[str, tuple[Any, Any]]:
        """By name, the settings of the attack that are not the suite's: what is set, and what the suite has."""
        suite = SUITES.get(self.suite, {})
        set_here = {name: (getattr(self, name), suite[name]) for name in ("eps", *_OF_AN_ATTACK) if name in suite}
        return {name: (given, usual) for name, (given, usual) in set_here.items() if given != usual}

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values, as a run's configuration holds and hashes them."""
        plain = self.model_dump(mode="json")
        unused = [name for name in _LATER if plain[name] == type(self).model_fields[name].default]
        return {name: value for name, value in plain.items() if name not in unused}

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """The settings from plain values; the message names what is wrong and what is allowed."""
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the configuration"
            if first["type"] == "extra_forbidden":
                allowed = ", ".join(sorted(cls.model_fields))
                raise ConfigError(f"the {cls.noun} has no setting {key!r}; it has: {allowed}") from None
            given = first.get("input")
            cause = first.get("ctx", {}).get("error")
            raise ConfigError(str(cause) if cause else f"{key}: {first['msg'].lower()}, not {given!r}") from None
