"""Numbers as people write them: a decimal, or a fraction such as 8/255."""

from __future__ import annotations

import math
import re
from typing import Any

from embattle.errors import ConfigError

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def decimal(text: str) -> float | None:
    """The finite number that `text` is, or None.

    >>> decimal("4e-2"), decimal("8/255"), decimal("nan"), decimal("1e999")
    (0.04, None, None, None)
    """
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def decimal_or_fraction(text: str) -> float | None:
    """The number that `text` is as a decimal or as one divided by another, or None.

    >>> decimal_or_fraction("0.25"), decimal_or_fraction("1/4"), decimal_or_fraction("1/0"), decimal_or_fraction("a/4")
    (0.25, 0.25, None, None)
    """
    top, slash, bottom = text.partition("/")
    numerator, denominator = decimal(top.strip()), decimal(bottom.strip()) if slash else 1.0
    return None if numerator is None or not denominator else numerator / denominator


def pixel_units(word: Any, what: str) -> Any:
    """The number that a setting in pixel units was written as; what is no text is given back as it is.

    Raises:
        ConfigError: a text that is no number.

    >>> pixel_units("8/255", "eps") == 8 / 255, pixel_units(0.1, "eps")
    (True, 0.1)
    """
    if not isinstance(word, str | bool):
        return word
    text = str(word).strip()
    value = decimal_or_fraction(text)
    if value is None:
        raise ConfigError(
            f"{what} {text!r} is not a number in (0, 1]; write a decimal such as 0.03 or a fraction such as 8/255"
        )
    return value


def check_eps(eps: float) -> None:
    """Checks that ε is a budget in pixel units.

    Raises:
        ConfigError: outside (0, 1].
    """
    if not 0 < eps <= 1:
        raise ConfigError(f"ε = {eps:g} is outside (0, 1]; ε is in pixel units of [0, 1]: for n grey levels write n/255")
