"""In what two configurations differ, setting by setting, for the message that refuses to mix them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embattle.records.unit import canonical_json

_LONGEST, _OF_A_HASH = 72, 12


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Every setting that two configurations do not share, with both values.

    Args:
        there: the settings of a run that exists; they may be of another version, or damaged.
        here: those asked for now.

    >>> differences({"audit": {"eps": [0.1], "k": 10}}, {"audit": {"eps": [0.1, 0.3], "k": 10}})
    ['audit.eps is [0.1] there and [0.1,0.3] here']
    """
    before, now = dict(_flat(there)), dict(_flat(here))
    told = []
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = _text(before, name), _text(now, name)
        if old != new:
            start = _common(old, new)
            told.append(f"{name} is {_short(old, start)} there and {_short(new, start)} here")
    return told


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "not set"
    value = settings[name]
    return value if isinstance(value, str) and value else canonical_json(value)


def _common(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def _short(text: str, start: int) -> str:
    """A text that fits a sentence: the beginning of a hash; of a long one the part where the two differ."""
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return f"{text[:_OF_A_HASH]}…"
    if len(text) <= _LONGEST:
        return text
    first = max(0, start - _LONGEST // 3)
    part = text[first : first + _LONGEST]
    return f"{'…' if first else ''}{part}{'…' if first + _LONGEST < len(text) else ''}"
