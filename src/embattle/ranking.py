"""The ranked list: what a search shows for one query."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from embattle.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RankedList:
    """Items in the order in which a query finds them, nearest first; checked when it is made, never changed after.

    Args:
        query: id of the query.
        items: ids of the items, each once.
        similarities: one for each item, never rising; higher = closer.

    Raises:
        InputError: lengths that differ, an item twice, a similarity that is not finite or rises.

    >>> found = RankedList(query="q", items=("b", "a"), similarities=(0.9, 0.4))
    >>> found.rank("a"), [item for item, similarity in found]
    (1, ['b', 'a'])
    """

    query: str
    items: tuple[str, ...]
    similarities: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("items", "similarities"):
            if not isinstance(getattr(self, name), tuple):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        where = f"ranked list of query {self.query!r}"
        if len(self.items) != len(self.similarities):
            raise InputError(f"{where}: {len(self.items)} items and {len(self.similarities)} similarities; one for each")
        if len(set(self.items)) != len(self.items):
            twice = next(item for item in self.items if self.items.count(item) > 1)
            raise InputError(f"{where}: item {twice!r} is in it more than once; ids must be unique")
        for position, value in enumerate(self.similarities):
            if not math.isfinite(value):
                raise InputError(f"{where}: similarity {value} at rank {position}; all must be finite")
            if position and value > self.similarities[position - 1]:
                raise InputError(
                    f"{where}: the similarity rises from {self.similarities[position - 1]} to {value} at rank "
                    f"{position}; write the nearest item first (similarities, not distances)"
                )

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(zip(self.items, self.similarities, strict=True))

    def rank(self, item: str) -> int | None:
        """Position of an item from 0, or None when it is not in the list."""
        return self.items.index(item) if item in self.items else None

    def top(self, k: int) -> RankedList:
        """The first k items, or all of them where there are fewer.

        Raises:
            InputError: k below 1.
        """
        if k < 1:
            raise InputError(f"the first {k} items of a ranked list: k must be at least 1")
        return RankedList(query=self.query, items=self.items[:k], similarities=self.similarities[:k])
