"""Numbers as people write them: a decimal, or a fraction such as 8/255."""

from __future__ import annotations

import math
import re

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
