"""What an attacker may try on a searchable gallery: the contract of a scenario, and scenarios by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from embattle.attacks import Objective
from embattle.data import ImageSet
from embattle.errors import ConfigError
from embattle.registry import Registry
from embattle.scenarios.subject import Subject

SCENARIOS: Registry = Registry("scenario", "embattle.scenarios")
_NAME = re.compile(r"(?P<family>[a-z][a-z-]*[+-]?)(?:\.[wm](?P<width>[0-9]{1,4}))?")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What became of n attacked pictures: metrics by name, each (n,), and whether the attacker's goal holds, (n,)."""

    metrics: Mapping[str, Tensor]
    goal: Tensor


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture of a displayed list: a gallery position, or None for the adversarial picture; `rank` counts from 1."""

    position: int | None
    similarity: float
    rank: int
    framed: bool


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A finding as people look at it: one list before and after the attack, and the rank of what was attacked (from 1)."""

    title: str
    before_title: str
    after_title: str
    before: Sequence[Shown]
    after: Sequence[Shown]
    anchor_label: str
    anchor: int | None
    rank_before: int
    rank_after: int


class Setting(Protocol):
    """What a description speaks of. A gallery and the settings give it before there is a model."""

    @property
    def images(self) -> ImageSet:
        """The gallery's pictures."""
        ...

    @property
    def preserve(self) -> int:
        """How many neighbours a semantics-preserving query attack keeps."""
        ...

    @property
    def page(self) -> int:
        """Length of a list's first page."""
        ...


class Scenario(Protocol):
    """One thing an attacker may try, with how it is attacked, measured and shown.

    `needs_classes` is how many classes the gallery's labels must tell apart: 0 where it takes no labels.
    """

    needs_classes: int

    @property
    def name(self) -> str:
        """As in gates and figures, such as "ca+.w1"."""
        ...

    def describe(self, subject: Setting) -> Mapping[str, Any]:
        """Title, question, direction, headline metric, metrics, criterion and advice, for people."""
        ...

    def targets(self, gallery: int, page: int) -> tuple[int, int]:
        """How many targets a picture gets, and among how many gallery items they are drawn."""
        ...

    def aims(self, subject: Subject, rows: Tensor, seed: int) -> Mapping[str, Tensor]:
        """Random targets of the given gallery positions, each drawn by its own key; first axis n."""
        ...

    def objective(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor]) -> Objective:
        """What the attack maximises."""
        ...

    def measure(self, subject: Subject, rows: Tensor, aims: Mapping[str, Tensor], z: Tensor) -> Measured:
        """Figures of pictures that stood at `rows` and are now embedded at `z` (n, D); NaN where one is undefined."""
        ...

    def exhibit(self, subject: Subject, row: int, aims: Mapping[str, Tensor], z: Tensor) -> Exhibit:
        """The lists of one attacked picture; `aims` has one row, `z` is (1, D)."""
        ...


def named(name: str) -> Scenario:
    """The scenario called `name`: a family, and where it has one the number of targets, as in "ca+.w10" or "sp-qa-.m5".

    Raises:
        ConfigError: an unknown family or a name that is not understood.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"scenario {name!r} is not understood; write FAMILY or FAMILY.wN, for example ca+.w1")
    build = SCENARIOS[match["family"]].build
    scenario: Scenario = build()
    if match["width"] is None:
        return scenario
    if "width" not in inspect.signature(build).parameters:
        raise ConfigError(f"scenario {name!r} is not understood; {scenario.name!r} takes no number")
    if int(match["width"]) < 1:
        raise ConfigError(f"scenario {name!r} has no targets; the number after .w or .m must be at least 1")
    scenario = build(int(match["width"]))
    if scenario.name != name:
        raise ConfigError(f"scenario {name!r} is not understood; its name is written {scenario.name!r}")
    return scenario
