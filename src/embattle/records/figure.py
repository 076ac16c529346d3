"""One measured number with all that is needed to judge it: unit, sample count, interval, what was not measurable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from embattle.errors import InputError

_KEYS = ("value", "unit", "n", "undefined", "failed", "ci", "method", "higher_is_better")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a report: a value, its interval, and how many samples stand behind it.

    Args:
        value: the number in `unit`, or None when no sample has a defined value.
        unit: "%" (0 to 100), "share" (0 to 1), "" (no unit) or any other name.
        n: samples with a defined value; they alone enter `value`.
        undefined: samples for which the question has no answer (counted, never averaged in).
        failed: samples for which the computation broke down (counted, never averaged in).
        ci: lower and upper end of the interval, in `unit`, or None.
        method: how `value` and `ci` were computed.
        higher_is_better: whether a larger value is better for the owner of the system.

    Raises:
        InputError: a number that is not finite, a negative count, an interval in the wrong order.

    >>> counts = {"n": 200, "undefined": 0, "failed": 0}
    >>> print(Figure(value=3.04, unit="%", ci=(2.1, 4.2), method="", higher_is_better=True, **counts))
    3.0 % [2.1, 4.2] (n=200)
    """

    value: float | None
    unit: str
    n: int
    undefined: int
    failed: int
    ci: tuple[float, float] | None
    method: str
    higher_is_better: bool

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("n", "undefined", "failed"):
            if getattr(self, name) < 0:
                raise InputError(f"figure with {name}={getattr(self, name)}: a count is 0 or more.")
        if self.value is not None:
            object.__setattr__(self, "value", _finite(self.value, "value"))
        if (self.value is None) != (self.n == 0):
            raise InputError(
                f"figure with value {self.value} over n={self.n} samples: a figure has a value exactly when n >= 1; "
                "write value=None and n=0 when nothing could be measured."
            )
        if self.ci is not None:
            self._check_interval(self.ci)

    def _check_types(self) -> None:
        wanted: dict[str, type] = {"unit": str, "n": int, "undefined": int, "failed": int, "method": str}
        for name, kind in (wanted | {"higher_is_better": bool}).items():
            given = getattr(self, name)
            if not isinstance(given, kind) or (kind is int and isinstance(given, bool)):
                raise InputError(f"figure with {name}={given!r}: it must be of type {kind.__name__}.")

    def _check_interval(self, given: tuple[float, float]) -> None:
        if isinstance(given, str) or len(given) != 2:
            raise InputError(f"figure with interval {given!r}: write (low, high) or None.")
        low, high = _finite(given[0], "lower end"), _finite(given[1], "upper end")
        if low > high:
            raise InputError(f"figure with interval [{low}, {high}]: the lower end comes first.")
        if self.value is None:
            raise InputError(f"figure without a value but with the interval [{low}, {high}]: write ci=None.")
        object.__setattr__(self, "ci", (low, high))

    def to_json(self) -> dict[str, Any]:
        """The figure as plain JSON values; `ci` becomes a list of two numbers or None."""
        plain = asdict(self)
        plain["ci"] = None if self.ci is None else list(self.ci)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Figure:
        """The figure written by `to_json`.

        Args:
            data: a mapping with exactly the fields of a figure.

        Raises:
            InputError: a field is missing, unknown or out of range.
        """
        if not isinstance(data, Mapping) or set(data) != set(_KEYS):
            given = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else repr(data)
            raise InputError(f"a figure with the fields {given}: allowed are exactly {', '.join(_KEYS)}.")
        fields = dict(data)
        if fields["ci"] is not None:
            if not isinstance(fields["ci"], list | tuple):
                raise InputError(f"figure with interval {fields['ci']!r}: write [low, high] or null.")
            fields["ci"] = tuple(fields["ci"])
        return cls(**fields)

    def __str__(self) -> str:
        counts = f"n={self.n}"
        counts += f", {self.undefined} undefined" if self.undefined else ""
        counts += f", {self.failed} failed" if self.failed else ""
        if self.value is None:
            return f"undefined ({counts})"
        suffix = "" if self.unit in ("", "share") else f" {self.unit}"
        interval = "" if self.ci is None else f" [{self._number(self.ci[0])}, {self._number(self.ci[1])}]"
        return f"{self._number(self.value)}{suffix}{interval} ({counts})"

    def _number(self, value: float) -> str:
        return f"{value:.1f}" if self.unit == "%" else f"{value:.3g}"


def _finite(given: Any, what: str) -> float:
    if hasattr(given, "item"):
        given = given.item()  # numpy scalars; a plain float is what JSON and equality need
    if isinstance(given, bool) or not isinstance(given, float | int):
        raise InputError(f"figure with {what} {given!r}: it must be a finite number.")
    number = float(given)
    if not math.isfinite(number):
        raise InputError(f"figure with {what} {number}: it must be finite; count the sample as undefined or failed.")
    return number
