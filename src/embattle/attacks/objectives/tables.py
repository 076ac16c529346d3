"""Sorted gallery similarities with their prefix sums: what turns a hinge over the whole gallery into a binary search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Queries compared with the gallery at a time. One fixed shape, so that a table does not depend on who else is asked for.
_QUERIES = 16
# Galleries below this are sorted sooner than a thread is started.
_WORTH_A_THREAD = 50_000
# Sums are kept at every 256th place: a table is little larger than its similarities, and the rest is added when asked.
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Table:
    """One query's similarities to the gallery, rising, and the sums of the first 0, 256, 512, ... and of all of them.

    The sums are float64: they reach 10^6, and their differences decide the loss.
    """

    rising: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float64]

    @classmethod
    def of(cls, similarities: npt.NDArray[np.float32]) -> Table:
        """From (M,) similarities in any order."""
        # numpy's sort uses the processor's vectors and takes a third of the time of torch's.
        rising = np.sort(similarities)
        blocks = np.add.reduceat(rising, np.arange(0, len(rising), _BLOCK), dtype=np.float64)
        return cls(rising, np.concatenate([np.zeros(1), np.cumsum(blocks)]))

    def below(self, value: np.float32, side: Literal["left", "right"]) -> tuple[int, float]:
        """How many similarities lie below a value, and their sum."""
        place = int(self.rising.searchsorted(value, side=side))
        block = place // _BLOCK
        return place, self.sums[block] + self.rising[block * _BLOCK : place].sum(dtype=np.float64)


class Tables:
    """Tables of n rows with W queries each. Rows hold references: taking and joining them copies nothing.

    A table lives as long as a row in flight refers to it, and rows with the same query share one.
    """

    def __init__(self, rows: Sequence[tuple[Table, ...]]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor) -> Tables:
        return Tables([self._rows[row] for row in rows.tolist()])

    def joined(self, other: Tables) -> Tables:
        """The rows of this, then the rows of the other."""
        return Tables(self._rows + other._rows)

    def below(self, values: Tensor, *, side: Literal["left", "right"]) -> tuple[Tensor, Tensor, Tensor]:
        """How many similarities lie below each value, and their sum; and the sum of all, each (n, W) on values' device.

        Args:
            values: (n, W) similarities.
            side: "left" counts those strictly below, "right" also those equal to the value.
        """
        found = values.detach().float().cpu().numpy()
        count = np.empty(found.shape, dtype=np.int64)
        sums = np.empty((2, *found.shape))
        for i, row in enumerate(self._rows):
            for j, table in enumerate(row):
                count[i, j], sums[0, i, j] = table.below(found[i, j], side)
                sums[1, i, j] = table.sums[-1]
        below, total = torch.from_numpy(sums).to(values.device)
        return torch.from_numpy(count).to(values.device), below, total


class Library:
    """Makes tables of queries against one gallery, and hands out the same one while somebody still holds it."""

    def __init__(self, against_gallery: Callable[[Tensor], Tensor]) -> None:
        self._against_gallery = against_gallery
        self._held: WeakValueDictionary[tuple[bytes, int], Table] = WeakValueDictionary()

    def tables(self, queries: Tensor, own: Tensor | None) -> Tables:
        """Tables of (n, W, D) queries; `own` (n,) are gallery positions left out of each row, or None."""
        n, width = queries.shape[:2]
        left_out = [-1] * n if own is None else own.tolist()
        keys = [[(query.cpu().numpy().tobytes(), left_out[i]) for query in queries[i]] for i in range(n)]
        # Held here until every row has its reference, or the weak dictionary would drop them again.
        held = dict(self._held)
        missing = {keys[i][j]: queries[i, j] for i in range(n) for j in range(width) if keys[i][j] not in held}
        made = self._make(missing)
        self._held.update(made)
        return Tables([tuple(held[key] if key in held else made[key] for key in row) for row in keys])

    def _make(self, missing: dict[tuple[bytes, int], Tensor]) -> dict[tuple[bytes, int], Table]:
        made: dict[tuple[bytes, int], Table] = {}
        names = list(missing)
        for first in range(0, len(names), _QUERIES):
            part = names[first : first + _QUERIES]
            rows = torch.stack([missing[name] for name in part])
            similarities = self._against_gallery(torch.cat([rows, rows[-1:].expand(_QUERIES - len(part), -1)]))
            for name, table in zip(part, self._tables(part, similarities.cpu().numpy()), strict=True):
                made[name] = table
        return made

    @staticmethod
    def _tables(names: Sequence[tuple[bytes, int]], similarities: npt.NDArray[np.float32]) -> list[Table]:
        def one(row: int) -> Table:
            own = names[row][1]
            return Table.of(similarities[row] if own < 0 else np.delete(similarities[row], own))

        # Sorting holds no lock, so that every thread of torch's share sorts one query's similarities.
        if len(names) == 1 or similarities.shape[1] < _WORTH_A_THREAD:
            return [one(row) for row in range(len(names))]
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return list(threads.map(one, range(len(names))))
