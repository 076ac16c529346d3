"""Sorted gallery similarities with their prefix sums: what turns a hinge over the whole gallery into a binary search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Queries compared with the gallery at a time. One fixed shape, so that a table does not depend on who else is asked for.
_QUERIES = 16


@dataclass(frozen=True, eq=False)
class Table:
    """One query's similarities to the gallery, rising, and the sums of the first 0, 1, 2, ... of them.

    The sums are float64: they reach 10^6, and their differences decide the loss.
    """

    rising: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float64]

    @classmethod
    def of(cls, similarities: Tensor) -> Table:
        """From (M,) similarities in any order."""
        rising = similarities.sort().values.cpu().numpy()
        sums = np.zeros(len(rising) + 1)
        np.cumsum(rising, dtype=np.float64, out=sums[1:])
        return cls(rising, sums)


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
                count[i, j] = place = table.rising.searchsorted(found[i, j], side=side)
                sums[:, i, j] = table.sums[place], table.sums[-1]
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
            for name, values in zip(part, similarities, strict=False):
                own = name[1]
                kept = values if own < 0 else torch.cat([values[:own], values[own + 1 :]])
                made[name] = Table.of(kept)
        return made
