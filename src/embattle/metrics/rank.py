"""Ranks of given items in a query's ranked list, counted without making the list.

The rank of an item is the number of gallery items that are STRICTLY closer to the query: 0 is the best, and a tie does
not count against the item (Adversarial Ranking Attack and Defense, ECCV 2020, section 3.1, and its code). An attacked
picture of the gallery meets its own clean copy there; the paper keeps the copy, `exclude` takes it out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embattle.closer import Closer
from embattle.errors import InputError
from embattle.metrics.scores import Scores
from embattle.records.intervals import rate_figure
from embattle.similarity import Similarity, against
from embattle.vectors import check_embeddings, finite

# Queries and gallery items compared at a time: 256 x 4,096 float32 similarities are 4 MB and stay in the cache.
_ROWS, _COLUMNS = 256, 4_096


def ranks(
    query: Tensor, items: Tensor, gallery: Tensor, similarity: Similarity, *, exclude: Tensor | None = None
) -> Tensor:
    """Counts for each item the gallery items that are strictly closer to the query than it is.

    Args:
        query: (n, D); or (n, W, D) for W queries of each item.
        items: (n, W, D) for W items of each query; (n, D) for one item in each row.
        gallery: (M, D) embeddings of everything that is ranked. The items need not be among them.
        similarity: what ranks.
        exclude: (n,) or (n, E) positions in the gallery that do not count in that row, -1 for none: the attacked
            picture's own clean copy, for example. None: everything counts.

    Returns:
        (n, W) int64 from 0 to M; W is 1 where neither query nor items have a second axis.

    Raises:
        InputError: shapes that do not fit, or an excluded position outside the gallery.
        ModelError: NaN or infinity, or a gallery of equal embeddings.

    >>> from embattle.similarity import Euclidean, against
    >>> gallery = torch.tensor([[1.0], [2.0], [3.0], [3.0]])
    >>> ranks(torch.tensor([[0.0]]), torch.tensor([[[0.5], [2.0], [3.0], [9.0]]]), gallery, Euclidean()).tolist()
    [[0, 1, 2, 4]]
    """
    _check(query, items, gallery, similarity)
    left_out = _excluded(exclude, len(query), len(gallery), gallery.device)
    if query.ndim == 3:
        n, width, dimension = query.shape
        flat_items = items[:, None].expand(n, width, dimension).reshape(n * width, 1, dimension)
        flat = _count(
            query.reshape(n * width, dimension), flat_items, gallery, similarity, left_out.repeat_interleave(width, 0)
        )
        return flat.view(n, width)
    return _count(query, items if items.ndim == 3 else items[:, None], gallery, similarity, left_out)


def normalised_rank(ranks: Tensor, gallery_size: int) -> Tensor:
    """Ranks as a percentage of the gallery's size, as the ranking paper reports them.

    Args:
        ranks: integers from 0 to `gallery_size`, any shape.
        gallery_size: how many items were ranked (without excluded ones), >= 1.

    Returns:
        float64 of the same shape, 0 to 100.

    Raises:
        InputError: a size below 1, or a rank outside the gallery.

    >>> normalised_rank(torch.tensor([[0, 5]]), 10).tolist()
    [[0.0, 50.0]]
    """
    if gallery_size < 1:
        raise InputError(f"a gallery of {gallery_size} items: at least 1 is needed")
    if ranks.numel() and not (int(ranks.min()) >= 0 and int(ranks.max()) <= gallery_size):
        raise InputError(
            f"ranks from {int(ranks.min())} to {int(ranks.max())} in a gallery of {gallery_size}: allowed are 0 to "
            f"{gallery_size}"
        )
    return ranks.double() * (100.0 / gallery_size)


def success_at_rank(ranks: Tensor, k: int, *, gallery_size: int, already: Tensor | None = None) -> Scores:
    """Share of attacks that put their items among the first k, as in the recommender thesis (its rank_min).

    Args:
        ranks: (n,) or (n, W) ranks from 0; a row with several counts as a success when all of them are below k.
        k: length of the first page, 1 <= k <= gallery_size.
        gallery_size: how many items were ranked.
        already: (n,) bool, rows for which this held before the attack: they are undefined, not successes.

    Returns:
        1.0, 0.0 or NaN (undefined) for each row; the rate has a Wilson interval, and higher is worse for the owner.

    Raises:
        InputError: k out of range.

    >>> print(success_at_rank(torch.tensor([0, 3, 9]), 4, gallery_size=10))
    0.667 [0.208, 0.939] (n=3)
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= gallery_size:
        raise InputError(
            f"success at rank {k!r} in a gallery of {gallery_size}: k must be a whole number from 1 to {gallery_size}"
        )
    values = (ranks.flatten(1) < k).all(1).double() if ranks.ndim > 1 else (ranks < k).double()
    if already is not None:
        values = values.masked_fill(already, torch.nan)
    flags = [None if value != value else value == 1.0 for value in values.tolist()]
    return Scores(values=values, figure=rate_figure(flags, higher_is_better=False))


def _check(query: Tensor, items: Tensor, gallery: Tensor, similarity: Similarity) -> None:
    finite(query, "query embeddings")
    finite(items, "item embeddings")
    check_embeddings(gallery, similarity, "gallery embeddings")
    fits = (query.ndim, items.ndim) in {(2, 2), (2, 3), (3, 2)} and len(query) == len(items)
    if not fits or not query.shape[-1] == items.shape[-1] == gallery.shape[-1]:
        raise InputError(
            f"query {tuple(query.shape)}, items {tuple(items.shape)} and gallery {tuple(gallery.shape)}: allowed are "
            "query (n, D) with items (n, D) or (n, W, D), or query (n, W, D) with items (n, D), and gallery (M, D)"
        )


def _excluded(exclude: Tensor | None, n: int, size: int, device: torch.device) -> Tensor:
    if exclude is None:
        return torch.empty(n, 0, dtype=torch.int64, device=device)
    positions = exclude[:, None] if exclude.ndim == 1 else exclude
    if positions.ndim != 2 or len(positions) != n or positions.is_floating_point():
        raise InputError(
            f"exclude {exclude.dtype} {tuple(exclude.shape)} for {n} rows: allowed are integers ({n},) or ({n}, E)"
        )
    if positions.numel() and not (int(positions.min()) >= -1 and int(positions.max()) < size):
        raise InputError(
            f"exclude names the positions {int(positions.min())} to {int(positions.max())} of a gallery of {size}: "
            f"allowed are -1 (none) and 0 to {size - 1}"
        )
    return positions.to(device=device, dtype=torch.int64)


@torch.no_grad()
def _count(query: Tensor, items: Tensor, gallery: Tensor, similarity: Similarity, left_out: Tensor) -> Tensor:
    """Ranks of (n, W, D) items for (n, D) queries, tile by tile."""
    query, gallery = _single(query), _single(gallery)
    total = torch.zeros(items.shape[:2], dtype=torch.int64, device=gallery.device)
    pairs = zip(query.split(_ROWS), items.split(_ROWS), strict=True)
    own = torch.cat([similarity.pair(some.double()[:, None], theirs.double()) for some, theirs in pairs])
    for start in range(0, len(gallery), _COLUMNS):
        part = gallery[start : start + _COLUMNS]
        cross, closer = against(similarity, part), Closer(part, similarity)
        for rows in torch.arange(len(query), device=gallery.device).split(_ROWS):
            asked = query[rows[0] : rows[-1] + 1]
            approximate = _without(cross(asked), left_out[rows] - start)
            for column in range(items.shape[1]):
                total[rows, column] += closer.count(asked, approximate, own[rows, column])
    return total


def _single(embeddings: Tensor) -> Tensor:
    # The band in which similarities are computed again is one of float32.
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))


def _without(similarities: Tensor, positions: Tensor) -> Tensor:
    """Similarities (rows, columns) with those at each row's positions, as far as they lie in this tile, out of reach."""
    row, place = ((positions >= 0) & (positions < similarities.shape[1])).nonzero(as_tuple=True)
    similarities[row, positions[row, place]] = -torch.inf
    return similarities
