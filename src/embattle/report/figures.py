"""Numbers for people: ε, figures with their unit and interval, dates. Nothing here judges what a number means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

Record = Mapping[str, Any]

# Not strftime("%B"): the page must not depend on the locale of the machine.
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def eps_text(eps: float) -> str:
    """An ε in pixel units of [0, 1] as the grey levels a saved picture can use of it.

    Args:
        eps: the budget, in [0, 1].

    >>> eps_text(8 / 255), eps_text(0.03)
    ('8/255', '7/255')
    """
    return f"{math.floor(eps * 255 + 1e-6)}/255"


def eps_decimal(eps: float) -> str:
    """An ε as a short decimal number.

    >>> eps_decimal(8 / 255), eps_decimal(0.3)
    ('0.0314', '0.3')
    """
    return trim(eps, 4)


def trim(value: float, digits: int) -> str:
    """A number with at most `digits` decimals and no zeros at its end."""
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def number(value: float | None, *, digits: int | None = None) -> str:
    """A number for people: thousands separated, three significant digits unless `digits` decimals are asked for.

    >>> number(1234.5), number(0.01234), number(None)
    ('1,234', '0.0123', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if digits is not None:
        return f"{value:,.{digits}f}"
    size = abs(value)
    if size == 0 or size >= 100:
        return f"{value:,.0f}"
    return trim(value, min(6, max(0, 2 - math.floor(math.log10(size)))))


def value_text(figure: Record | None, *, digits: int | None = None) -> str:
    """The value of a figure with its unit; shares are shown in per cent.

    Args:
        figure: a figure record, or None.
        digits: decimals; None chooses: one for percentages, three significant digits for the rest.

    >>> value_text({"value": 0.847, "unit": "share"}), value_text({"value": None, "unit": "%"})
    ('84.7 %', 'undefined')
    """
    if figure is None:
        return "not measured"
    value = figure.get("value")
    if value is None:
        return "undefined"
    scale, unit, digits = _scale(figure, digits)
    return f"{number(value * scale, digits=digits)} {unit}".strip()


def interval_text(figure: Record | None, *, digits: int | None = None) -> str:
    """The interval of a figure in the units of `value_text`, or an empty string.

    >>> interval_text({"value": 0.8, "unit": "share", "ci": [0.71, 0.87]}, digits=0)
    '[71, 87]'
    """
    if figure is None or figure.get("ci") is None:
        return ""
    scale, _, digits = _scale(figure, digits)
    low, high = figure["ci"]
    return f"[{number(low * scale, digits=digits)}, {number(high * scale, digits=digits)}]"


def _scale(figure: Record, digits: int | None) -> tuple[float, str, int | None]:
    unit = str(figure.get("unit") or "")
    if unit == "share":
        return 100.0, "%", 1 if digits is None else digits
    if unit == "%":
        return 1.0, "%", 1 if digits is None else digits
    return 1.0, unit, digits


def figure_text(figure: Record | None, *, digits: int | None = None) -> str:
    """Value and interval in one string.

    >>> figure_text({"value": 0.8, "unit": "share", "ci": [0.71, 0.87]}, digits=0)
    '80 % [71, 87]'
    """
    return f"{value_text(figure, digits=digits)} {interval_text(figure, digits=digits)}".strip()


def left_out_text(figure: Record | None) -> str:
    """How many samples are not in the figure, or an empty string when all are.

    >>> left_out_text({"undefined": 3, "failed": 0})
    '3 undefined'
    """
    counts = [(int((figure or {}).get(key) or 0), key) for key in ("undefined", "failed")]
    return ", ".join(f"{count:,} {key}" for count, key in counts if count)


def short_name(name: object, longest: int = 28) -> str:
    """A name that fits a narrow column: of a long path only its end.

    >>> short_name("checkpoint:/models/catalogue/resnet18-triplet.safetensors"), short_name("C2F1")
    ('resnet18-triplet.safetensors', 'C2F1')
    """
    text = str(name)
    if len(text) <= longest:
        return text
    text = text.rstrip("/").rsplit("/", 1)[-1]
    return text if len(text) <= longest else f"{text[: longest - 9]}…{text[-8:]}"


def date_text(created: object) -> str:
    """A point in time for people; text that is no ISO date stays as it is.

    >>> date_text("2026-01-02T03:04:05+00:00"), date_text("yesterday")
    ('2 January 2026, 03:04 UTC', 'yesterday')
    """
    try:
        moment = datetime.fromisoformat(str(created))
    except ValueError:
        return str(created)
    month = _MONTHS[moment.month - 1]
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment.day} {month} {moment.year}, {moment:%H:%M}{zone}"
