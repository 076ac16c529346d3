from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embattle.errors import InputError
from embattle.records import Unit, canonical_json

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15)


def shuffled(tree: Any) -> Any:
    """The same tree with all mappings filled in the reverse order, and tuples for lists."""
    if isinstance(tree, dict):
        return {key: shuffled(tree[key]) for key in reversed(list(tree))}
    return tuple(shuffled(item) for item in tree) if isinstance(tree, list) else tree


@given(trees)
def test_canonical_json_is_stable_exact_and_one_ascii_line(tree: Any) -> None:
    text = canonical_json(tree)
    assert text == canonical_json(shuffled(tree))
    assert json.loads(text) == tree
    assert text.isascii()
    assert "\n" not in text
    assert canonical_json(json.loads(text)) == text


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": [1, 0.1, 1e-7], "a": "é\n"}) == '{"a":"\\u00e9\\n","b":[1,0.1,1e-07]}'


def test_numpy_scalars_are_numbers() -> None:
    assert canonical_json({"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True)}) == '{"b":true,"f":0.5,"i":3}'


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "null"), ({"a": [math.inf]}, "null"), (np.float32("nan"), "null"), ({1: "a"}, "keys are strings"),
        ({"a": [{(1, 2): 3}]}, "keys are strings"), (b"bytes", "bytes"), (np.zeros(2), "ndarray"), ({1, 2}, "set"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_with_a_sentence(value: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        canonical_json(value)
    assert says in str(caught.value)


def test_a_record_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="contains itself"):
        canonical_json(loop)


def make(**change: Any) -> Unit:
    fields: dict[str, Any] = {"kind": "attack", "params": {"eps": 0.03, "w": [1]}, "samples": ("a", "b"), "needs": ()}
    return Unit(**{**fields, **change})


def test_id_is_the_hash_of_the_four_fields() -> None:
    text = '{"kind":"attack","needs":[],"params":{"eps":0.03,"w":[1]},"samples":["a","b"]}'
    assert make().id == hashlib.sha256(text.encode()).hexdigest()


def test_every_field_enters_the_id() -> None:
    units = [
        make(), make(kind="embed"), make(params={"eps": 0.03, "w": [2]}), make(samples=("b", "a")),
        make(needs=(make().id,)),
    ]  # fmt: skip
    assert len({unit.id for unit in units}) == len(units)


def test_equal_units_are_equal_however_they_were_written() -> None:
    other = make(params={"w": (np.int64(1),), "eps": np.float64(0.03)}, samples=["a", "b"])
    assert other == make()
    assert hash(other) == hash(make())


def test_a_change_of_the_given_mapping_does_not_reach_the_unit() -> None:
    params = {"eps": 0.03, "w": [1]}
    unit = make(params=params)
    params["w"].append(2)  # type: ignore[union-attr]
    assert unit == make()


@given(st.dictionaries(st.text(), trees), st.lists(st.text(), unique=True))
def test_json_and_back_is_the_same_unit(params: dict[str, Any], samples: list[str]) -> None:
    unit = Unit(kind="train", params=params, samples=tuple(samples), needs=("0" * 64,))
    again = Unit.from_json(json.loads(canonical_json(unit.to_json())))
    assert again == unit
    assert again.id == unit.id


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "dance"}, {"params": [1]}, {"params": {"eps": math.nan}}, {"samples": "abc"}, {"samples": (1,)},
        {"samples": ("a", "a")}, {"needs": ("short",)}, {"needs": ("A" * 64,)},
    ],
)  # fmt: skip
def test_impossible_units_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make(**change)


@pytest.mark.parametrize("data", [{}, [], {"kind": "attack"}, {**make().to_json(), "id": "0"}])
def test_json_that_is_no_unit_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match="kind, params, samples, needs"):
        Unit.from_json(data)


def test_importing_records_loads_no_heavy_package() -> None:
    code = (
        "import sys, embattle.records;"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib', 'PIL', 'pydantic', 'jinja2', 'transformers'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_sorted_and_there() -> None:
    import embattle.records as records

    assert records.__all__ == sorted(records.__all__)
    assert all(hasattr(records, name) for name in records.__all__)
