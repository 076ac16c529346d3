"""RankedList checks itself and cannot be changed."""

import dataclasses

import pytest

from embattle.errors import InputError
from embattle.ranking import RankedList


def test_holds_items_in_order():
    found = RankedList(query="q", items=["a", "b", "c"], similarities=[0.5, 0.5, -1.0])
    assert found.items == ("a", "b", "c")
    assert len(found) == 3
    assert list(found) == [("a", 0.5), ("b", 0.5), ("c", -1.0)]
    assert [found.rank(item) for item in ("a", "c", "z")] == [0, 2, None]
    assert found.top(2) == RankedList(query="q", items=("a", "b"), similarities=(0.5, 0.5))
    assert found.top(9) == found
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.query = "other"


@pytest.mark.parametrize(
    ("items", "similarities", "said"),
    [
        (("a", "b"), (0.1, 0.2), "rises from 0.1 to 0.2 at rank 1"),
        (("a", "a"), (0.2, 0.1), "'a' is in it more than once"),
        (("a",), (0.2, 0.1), "1 items and 2 similarities"),
        (("a", "b"), (0.2, float("nan")), "similarity nan at rank 1"),
        (("a",), (float("inf"),), "similarity inf at rank 0"),
    ],
)
def test_bad_lists_are_sentences(items, similarities, said):
    with pytest.raises(InputError, match=said):
        RankedList(query="q", items=items, similarities=similarities)


def test_top_of_nothing_is_an_error():
    with pytest.raises(InputError, match="at least 1"):
        RankedList(query="q", items=("a",), similarities=(1.0,)).top(0)
