"""Gates: conditions on the figures of a summary that the owner wants to hold.

::

    NAME[@EPS] OP NUMBER             OP is one of  >  >=  <  <=

    ca+.w1@0.03 > 40                 headline figure of the threat ca+.w1 at ε 0.03
    ca+.w1.success@8/255 <= 0.05     another figure of the threat; ε may be a fraction
    ca+.w1 > 40                      at every tested ε above 0: the worst one counts
    recall@1 >= 0.95                 a figure of the clean system
    ers >= 30                        the robustness score of an audit with --suite ers

The condition states what must HOLD. It is checked on the value, not on the ends of its interval; both are reported. A
figure without a value holds no gate.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from embattle.errors import ConfigError, InputError
from embattle.records.figure import Figure
from embattle.records.numerals import decimal, decimal_or_fraction

GivenTo = Literal["audit", "report"]
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_NAME = re.compile(r"[A-Za-z0-9+\-._@/]+")
_LONGEST = 200
_WRITE = "write NAME[@EPS] OP NUMBER with OP one of > >= < <=, for example 'ca+.w1@0.03 > 40' or 'recall@1 >= 0.95'."


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """What became of a gate.

    Args:
        expression: the gate as the owner wrote it.
        measured: the value it was checked on, or None when undefined.
        ci: interval of that value, or None.
        passed: whether the condition holds.
        why: one sentence.
        given: to which command the gate was given.
    """

    expression: str
    measured: float | None
    ci: tuple[float, float] | None
    passed: bool
    why: str
    given: GivenTo = "audit"

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "expression": self.expression,
            "measured": self.measured,
            "ci": None if self.ci is None else list(self.ci),
            "passed": self.passed,
            "why": self.why,
            "given": self.given,
        }


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A parsed gate.

    Args:
        expression: the text it was parsed from.
        target: the part before the operator, NAME or NAME@EPS; a summary tells which.
        op: ">", ">=", "<" or "<=".
        number: what the figure is compared with, in the figure's unit.
        given: to which command: a gate of the audit belongs to its run, one of a report only to that report.
    """

    expression: str
    target: str
    op: str
    number: float
    given: GivenTo = "audit"

    def find(self, summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
        """The figures the gate speaks of, as the summary holds them, each with the place it is measured at.

        Nothing is read but names, so that a gate can be refused before anything is measured.

        Args:
            summary: the content of a summary.json, or of one that is yet to come.

        Raises:
            ConfigError: no figure has that name, or the ε is not tested; the message lists near names.
            InputError: a point of the summary lacks the figure.
        """
        threats = _threat_figures(summary)
        name, _, suffix = self.target.rpartition("@")
        eps = decimal_or_fraction(suffix)
        if eps is not None and name in threats:
            curve, figure = threats[name]
            points = [point for point in curve if math.isclose(point["eps"], eps, rel_tol=1e-6, abs_tol=1e-9)]
            if not points:
                known = ", ".join(f"{point['eps']:g}" for point in curve) or "none"
                raise ConfigError(
                    f"gate {self.expression!r}: ε {suffix} is not tested for {name}; tested: {known}. Name one of these, "
                    f"or start an audit with --eps {suffix}."
                )
            return [(f"{name} at ε {points[0]['eps']:g}", _record(points[0], figure))]
        if self.target in summary["clean"]:
            return [(self.target, summary["clean"][self.target])]
        if self.target in threats:
            curve, figure = threats[self.target]
            points = [point for point in curve if point["eps"] > 0]
            if not points:
                raise ConfigError(f"gate {self.expression!r}: {self.target} was not tested at any ε above 0.")
            return [(f"{self.target} at ε {point['eps']:g}", _record(point, figure)) for point in points]
        raise ConfigError(self._unknown(name if eps is not None else self.target, summary, {*threats, *summary["clean"]}))

    def check(self, summary: Mapping[str, Any]) -> GateResult:
        """Checks the gate on a summary.

        Args:
            summary: the content of a summary.json.

        Raises:
            ConfigError: no figure has that name, or the ε is not tested; the message lists near names.

        >>> figure = Figure(value=0.9, unit="share", n=10, undefined=0, failed=0, ci=None, method="", \
higher_is_better=True)
        >>> parse_gate("recall@1 >= 0.95").check({"clean": {"recall@1": figure.to_json()}, "threats": []}).passed
        False
        """
        places = [(place, Figure.from_json(record)) for place, record in self.find(summary)]
        undefined = [(place, figure) for place, figure in places if figure.value is None]
        if undefined:
            place, figure = undefined[0]
            why = f"{place} is {figure}: a figure without a value holds no gate."
            return self._result(None, None, False, why)
        # The worst place decides: when it holds, all hold.
        worst = min if self.op.startswith(">") else max
        place, figure = worst(places, key=lambda pair: pair[1].value if pair[1].value is not None else math.nan)
        assert figure.value is not None
        passed = _OPERATORS[self.op](figure.value, self.number)
        among = f", the worst of {len(places)} tested ε" if len(places) > 1 else ""
        why = f"{place} is {figure}{among}; the gate asks for {self.op} {self.number:g}."
        return self._result(figure.value, figure.ci, passed, why)

    def _result(self, measured: float | None, ci: tuple[float, float] | None, passed: bool, why: str) -> GateResult:
        return GateResult(
            expression=self.expression, measured=measured, ci=ci, passed=passed, why=why, given=self.given
        )  # fmt: skip

    def _unknown(self, name: str, summary: Mapping[str, Any], known: set[str]) -> str:
        for row in summary.get("skipped", ()):
            if self.target == row["scenario"] or self.target.startswith((f"{row['scenario']}.", f"{row['scenario']}@")):
                return f"gate {self.expression!r}: {row['scenario']} is not measured: {row['reason']}."
        near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        names = ", ".join(sorted(known)) or "none"
        return f"gate {self.expression!r}: this run has no figure {name!r}. {hint}It has: {names}."


def parse_gate(text: str, given: GivenTo = "audit") -> Gate:
    """Reads a gate.

    Args:
        text: `NAME[@EPS] OP NUMBER`, at most 200 characters.
        given: to which command.

    Raises:
        ConfigError: the text is no gate; the message says what to write.

    >>> parse_gate("ca+.w1@0.03 > 40").number
    40.0
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"gate of {len(text)} characters: at most {_LONGEST} are allowed; {_WRITE}")
    parts = re.split(r"(>=|<=|>|<)", text, maxsplit=1)
    if len(parts) != 3:
        raise ConfigError(f"gate {text!r} has no operator; {_WRITE}")
    target, op, number = (part.strip() for part in parts)
    if not _NAME.fullmatch(target):
        raise ConfigError(f"gate {text!r}: {target!r} is no name of a figure; {_WRITE}")
    value = decimal(number)
    if value is None:
        raise ConfigError(f"gate {text!r}: {number!r} is no finite number; {_WRITE}")
    return Gate(expression=text, target=target, op=op, number=value, given=given)


def _threat_figures(summary: Mapping[str, Any]) -> dict[str, tuple[list[Mapping[str, Any]], str]]:
    """Curve and figure name by gate name: THREAT (its headline figure) and THREAT.FIGURE."""
    names: dict[str, tuple[list[Mapping[str, Any]], str]] = {}
    for threat in summary["threats"]:
        figures = {name for point in threat["curve"] for name in point["figures"]}
        for figure in figures:
            names[f"{threat['threat']}.{figure}"] = (threat["curve"], figure)
        names[threat["threat"]] = (threat["curve"], threat["metric"])
    # The scores of a suite are asked for as a threat's figures are, by name and ε.
    scores = (summary.get("robustness") or {}).get("curve", ())
    for score in dict.fromkeys(name for point in scores for name in point["figures"]):
        names[score] = (list(scores), score)
    return names


def _record(point: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in point["figures"]:
        raise InputError(f"the summary has no figure {name!r} at ε {point['eps']:g}; rebuild it with embattle report.")
    record: Mapping[str, Any] = point["figures"][name]
    return record
