"""Exact search by comparing a query with every item of the gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from embattle.errors import InputError
from embattle.ranking import RankedList
from embattle.similarity import COLUMN_TILE, Similarity, against
from embattle.vectors import finite

# Queries answered at a time, so that memory does not grow with their number.
_ROWS = 256


class ExactIndex:
    """A gallery that is searched exactly; equal similarities keep the gallery's order.

    Beside the gallery and what the similarity makes of it, memory stays at one tile of similarities and the k best so far.

    Args:
        embeddings: (M, D) floats, kept as they are.
        ids: M unique ids.
        similarity: what ranks.
        column_tile: gallery items compared at a time.

    Raises:
        InputError: shapes that do not fit, ids that repeat, an empty gallery.
        ModelError: NaN or infinity among the embeddings.

    >>> from embattle.similarity import Euclidean, against
    >>> index = ExactIndex(torch.tensor([[0.0], [3.0], [1.0]]), ("a", "b", "c"), Euclidean())
    >>> index.search(torch.tensor([[0.9]]), 2)[0].items
    ('c', 'a')
    """

    def __init__(
        self, embeddings: Tensor, ids: Sequence[str], similarity: Similarity, column_tile: int = COLUMN_TILE
    ) -> None:
        _check_rows(embeddings, "gallery embeddings")
        if len(ids) != len(embeddings):
            raise InputError(f"{len(embeddings)} gallery embeddings and {len(ids)} ids: one id for each is needed")
        if len(set(ids)) != len(ids):
            raise InputError(f"{len(ids)} gallery ids, only {len(set(ids))} of them different: ids must be unique")
        if column_tile < 1:
            raise InputError(f"column_tile={column_tile}: at least 1 is needed")
        self.embeddings = embeddings
        self.ids = tuple(ids)
        self.similarity = similarity
        self.column_tile = column_tile

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, queries: Tensor, k: int, query_ids: Sequence[str] | None = None) -> list[RankedList]:
        """The k nearest items of every query.

        Args:
            queries: (n, D) floats.
            k: length of the lists, 1 <= k <= M.
            query_ids: n ids for the lists; None: "query/0", "query/1", ...

        Raises:
            InputError: k larger than the gallery, or shapes that do not fit.
            ModelError: NaN or infinity among the queries.
        """
        names = [f"query/{number}" for number in range(len(queries))] if query_ids is None else list(query_ids)
        if len(names) != len(queries):
            raise InputError(f"{len(queries)} queries and {len(names)} query ids: one id for each is needed")
        scores, positions = self.nearest(queries, k)
        return [
            RankedList(query=name, items=tuple(self.ids[place] for place in row), similarities=tuple(values))
            for name, row, values in zip(names, positions.tolist(), scores.tolist(), strict=True)
        ]

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest items of every query as tensors: similarities (n, k) and gallery positions (n, k) int64.

        Raises:
            InputError: k larger than the gallery, or shapes that do not fit.
            ModelError: NaN or infinity among the queries.
        """
        _check_rows(queries, "queries")
        if queries.shape[1] != self.embeddings.shape[1]:
            raise InputError(
                f"queries of dimension {queries.shape[1]} in a gallery of dimension {self.embeddings.shape[1]}: both "
                "must come from the same model"
            )
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(self):
            raise InputError(f"the {k!r} nearest of a gallery of {len(self)} items: k must be from 1 to {len(self)}")
        answers = [self._nearest(rows, k) for rows in queries.split(_ROWS)]
        return torch.cat([scores for scores, _ in answers]), torch.cat([positions for _, positions in answers])

    @cached_property
    def _tiles(self) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
        """Where each tile of the gallery starts, and the comparison with it."""
        starts = range(0, len(self), self.column_tile)
        return [(start, against(self.similarity, self.embeddings[start : start + self.column_tile])) for start in starts]

    def _nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        best = queries.new_empty(len(queries), 0)
        places = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        for start, cross in self._tiles:
            scores = cross(queries)
            columns = torch.arange(start, start + scores.shape[1], device=queries.device).expand_as(scores)
            # Kept items stand before the new tile and come from earlier positions: a stable sort keeps ties in order.
            merged, order = torch.cat([best, scores], dim=1).sort(dim=1, descending=True, stable=True)
            best = merged[:, :k]
            places = torch.cat([places, columns], dim=1).gather(1, order[:, :k])
        return best, places


def _check_rows(embeddings: Tensor, what: str) -> None:
    finite(embeddings, what)
    if embeddings.ndim != 2:
        raise InputError(f"{what} of shape {tuple(embeddings.shape)}: allowed are floats (N, D)")
