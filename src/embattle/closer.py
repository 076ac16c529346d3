"""Which gallery items are strictly closer to a query than a given similarity, decided in float64 where float32 cannot.

A matrix product rounds differently from a single pair, so in float32 an item would often be "strictly farther" than its
own copy in the gallery, or than nothing but rounding noise. One stated answer to ties, for ranks and criteria alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embattle.similarity import Similarity

# A float32 similarity nearer than this to the compared one is computed again in float64: for the cosine as it is, for
# squared Euclidean distances relative to the squared size of the embeddings.
_BAND = 2e-5
# Float64 similarities this close, relatively, are equal.
_TIE = 1e-12
# Pairs compared in float64 at a time.
_PAIRS = 16_384


def strictly_closer(query: Tensor, gallery: Tensor, approximate: Tensor, own: Tensor, similarity: Similarity) -> Tensor:
    """Compares every gallery item with one similarity per query; a tie is not closer.

    Args:
        query: (n, D) embeddings.
        gallery: (M, D) embeddings.
        approximate: (n, M) float32 similarities of the two; NaN where an item is not to be counted.
        own: (n,) float64 similarities to compare with.
        similarity: what `approximate` and `own` were computed by.

    Returns:
        (n, M) booleans.
    """
    closer = approximate > own[:, None]
    row, column = _unsure(query, gallery, approximate, own, similarity).nonzero(as_tuple=True)
    for some in torch.arange(len(row), device=row.device).split(_PAIRS):
        r, c = row[some], column[some]
        exact = similarity.pair(query[r].double(), gallery[c].double())
        closer[r, c] = exact > own[r] + _TIE * own[r].abs().clamp_min(1.0)
    return closer


def _unsure(query: Tensor, gallery: Tensor, approximate: Tensor, own: Tensor, similarity: Similarity) -> Tensor:
    if similarity.name == "cosine":
        return (approximate - own[:, None]).abs() <= _BAND
    if similarity.name == "euclidean":
        centre = gallery.mean(0)
        size = ((query - centre) ** 2).sum(1, keepdim=True) + ((gallery - centre) ** 2).sum(1).amax()
        return (approximate.double() ** 2 - own[:, None] ** 2).abs() <= _BAND * size
    return ~torch.isnan(approximate)
