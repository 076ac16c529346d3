"""A unit of work: what is computed, on which samples, after which other units; its id is the hash of that."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from embattle.errors import InputError

UnitKind = Literal["train", "embed", "attack", "evaluate"]
KINDS: tuple[str, ...] = get_args(UnitKind)
_ID = re.compile(r"[0-9a-f]{64}")
_FIELDS = ("kind", "params", "samples", "needs")


def canonical_json(obj: Any) -> str:
    """One line of ASCII JSON that is the same for equal objects: sorted keys, no spaces, floats by `repr`.

    Args:
        obj: JSON values; tuples become lists, numpy scalars become Python numbers.

    Raises:
        InputError: NaN or infinity, a key that is no string, a value that JSON has no form for, a circular object.

    >>> canonical_json({"b": (1, 0.1), "a": None})
    '{"a":null,"b":[1,0.1]}'
    """
    try:
        _check_keys(obj)
        return _ENCODER.encode(obj)
    except RecursionError:
        raise InputError("a record that contains itself or is nested too deeply: write a plain, finite one.") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"a record that is not valid JSON ({error}): NaN, infinity and circular references are not allowed; "
            "write null for an undefined number."
        ) from None


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic) and np.ndim(value) == 0:
        plain = value.item()
        if isinstance(plain, bool | int | float | str):
            return plain
    raise InputError(
        f"a record with a value of type {type(value).__name__}: allowed are null, true, false, numbers, strings, "
        "lists and mappings; convert the value first."
    )


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=_scalar)


def _check_keys(obj: Any) -> None:
    """JSON would silently turn the keys 1 and "1" into the same text."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            if not isinstance(key, str):
                raise InputError(f"a record with the key {key!r}: keys are strings; write {str(key)!r}.")
            if isinstance(value, dict | list | tuple):
                _check_keys(value)
    elif isinstance(obj, list | tuple):
        for value in obj:
            if isinstance(value, dict | list | tuple):
                _check_keys(value)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of a run; equal units have equal ids, on every machine.

    Args:
        kind: "train", "embed", "attack" or "evaluate".
        params: everything that changes the result, as JSON values; a copy is kept, do not change it afterwards.
        samples: stable data-set ids, no duplicates; may be empty.
        needs: ids of the units that must be done before.

    Attributes:
        id: sha256 (64 hex digits) of the canonical JSON of the four fields.

    Raises:
        InputError: an unknown kind, params that are no JSON, duplicate samples, a need that is no id.

    >>> Unit(kind="attack", params={"eps": 0.03}, samples=("a",), needs=()).id[:16]
    '5d03951bd705d67f'
    """

    kind: UnitKind
    params: Mapping[str, Any]
    samples: tuple[str, ...]
    needs: tuple[str, ...]
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unit of kind {self.kind!r}: allowed are {', '.join(KINDS)}.")
        if not isinstance(self.params, Mapping):
            raise InputError(f"unit with params {self.params!r}: write a mapping of names to JSON values.")
        object.__setattr__(self, "samples", _strings(self.samples, "samples"))
        object.__setattr__(self, "needs", _strings(self.needs, "needs"))
        for need in self.needs:
            if not _ID.fullmatch(need):
                raise InputError(f"unit that needs {need!r}: write the id of a unit, 64 hexadecimal digits.")
        # Through JSON and back: a unit read from a file equals the one that was written.
        object.__setattr__(self, "params", json.loads(canonical_json(dict(self.params))))
        text = canonical_json(self.to_json())
        object.__setattr__(self, "id", hashlib.sha256(text.encode("ascii")).hexdigest())

    def __hash__(self) -> int:
        return hash(self.id)

    def to_json(self) -> dict[str, Any]:
        """The four fields the id is made of, as JSON values."""
        return {
            "kind": self.kind,
            "params": dict(self.params),
            "samples": list(self.samples),
            "needs": list(self.needs),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Unit:
        """The unit written by `to_json`.

        Args:
            data: a mapping with exactly the fields kind, params, samples and needs.

        Raises:
            InputError: a field is missing, unknown or out of range.
        """
        if not isinstance(data, Mapping) or set(data) != set(_FIELDS):
            given = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else repr(data)
            raise InputError(f"a unit with the fields {given}: allowed are exactly {', '.join(_FIELDS)}.")
        return cls(**data)


def _strings(given: Any, what: str) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(item, str) for item in given):
        raise InputError(f"unit with {what} {given!r}: write a sequence of strings.")
    items = tuple(given)
    if len(set(items)) != len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise InputError(f"unit with {twice!r} twice among its {what}: each may be named once.")
    return items
