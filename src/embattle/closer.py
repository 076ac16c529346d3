"""How many gallery items are strictly closer to a query than a given similarity, decided in float64 where float32 cannot.

A matrix product rounds differently from a single pair, so in float32 an item would often be "strictly farther" than its
own copy in the gallery, or than nothing but rounding noise. One stated answer to ties, for ranks and criteria alike: what
is clear is counted in float32, and the few items in the band around the compared similarity are computed again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embattle.similarity import Similarity

# A float32 similarity nearer than this to the compared one is computed again in float64: for the cosine as it is, for
# squared Euclidean distances relative to the squared size of the embeddings.
_BAND = 2e-5
# Float64 similarities this close, relatively, are equal.
_TIE = 1e-12
# Numbers compared in float64 at a time.
_NUMBERS = 2**20
# Booleans are added eight to a word: 128 words leave no byte above 128, so none runs over into its neighbour.
_BYTES, _WORDS = 8, 128


class Closer:
    """Compares queries with one gallery; what depends on the gallery alone is computed once.

    Args:
        gallery: (M, D) embeddings.
        similarity: what closeness means.
    """

    def __init__(self, gallery: Tensor, similarity: Similarity) -> None:
        self._gallery = gallery
        self._similarity = similarity
        if similarity.name == "euclidean":
            self._centre = gallery.mean(0)
            self._size = ((gallery - self._centre) ** 2).sum(1).amax()

    def count(self, query: Tensor, approximate: Tensor, own: Tensor) -> Tensor:
        """Counts for each query the items that are strictly closer than `own`; a tie is not closer.

        Args:
            query: (n, D) embeddings.
            approximate: (n, M) float32 similarities to the gallery; NaN or -inf where an item is not to be counted.
            own: (n,) float64 similarities to compare with.

        Returns:
            (n,) int64.
        """
        low, high = self._band(query, own)
        surely, perhaps = above(approximate, high), above(approximate, low)
        total = count(surely)
        rows, columns = _differing(surely, perhaps)
        for some in torch.arange(len(rows), device=rows.device).split(max(1, _NUMBERS // query.shape[1])):
            r, c = rows[some], columns[some]
            exact = self._similarity.pair(query[r].double(), self._gallery[c].double())
            closer = exact > own[r] + _TIE * own[r].abs().clamp_min(1.0)
            total.index_add_(0, r, closer.to(total.dtype))
        return total

    def _band(self, query: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 similarities up to the first are not closer, those above the second are."""
        if self._similarity.name == "cosine":
            low, high = own - _BAND, own + _BAND
        elif self._similarity.name == "euclidean":
            width = _BAND * (((query - self._centre) ** 2).sum(1) + self._size).double()
            low, high = -(own**2 + width).sqrt(), -(own**2 - width).clamp_min(0).sqrt()
            # Nothing is closer than distance 0, and what is called 0 in float32 need not be.
            high = torch.where(high == 0, torch.full_like(high, torch.inf), high)
        else:
            low, high = torch.full_like(own, -torch.inf), torch.full_like(own, torch.inf)
        return torch.nextafter(low.float(), low.new_tensor(-torch.inf).float()), high.float()


def above(values: Tensor, limits: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Where (n, M) float32 values lie above (n,) limits, as (n, M') booleans; columns from M on are False.

    Args:
        values: (n, M).
        limits: (n,).
        out: what an earlier call with values of this shape returned, to be written over; memory anew is slower than the
            comparison.

    >>> above(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1.5]))[:, :4].tolist()
    [[False, True, True, False]]
    """
    n, width = values.shape
    mask = out
    if mask is None:
        mask = torch.empty(n, -(-width // (_BYTES * _WORDS)) * _BYTES * _WORDS, dtype=torch.bool, device=values.device)
        mask[:, width:] = False
    if values.device.type == "cpu":
        # Several times as fast as torch, whose comparison of floats is not vectorised.
        np.greater(values.detach().numpy(), limits.detach().numpy()[:, None], out=mask.numpy()[:, :width])
    else:
        torch.gt(values.detach(), limits.detach()[:, None], out=mask[:, :width])
    return mask


def count(mask: Tensor) -> Tensor:
    """How many of each row of `above` hold, (n,) int64.

    >>> count(above(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1.5]))).tolist()
    [2]
    """
    words = mask.view(torch.int64).view(len(mask), -1, _WORDS).sum(-1)
    return words.view(torch.uint8).sum(1, dtype=torch.int64)


def _differing(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where two masks differ, which is hardly anywhere: words are looked at before bytes."""
    words = (one.view(torch.int64) != other.view(torch.int64)).flatten()
    on_host = words.device.type == "cpu"
    places = torch.from_numpy(np.flatnonzero(words.numpy())) if on_host else words.nonzero().flatten()
    pairs = one.view(-1, _BYTES)[places] != other.view(-1, _BYTES)[places]
    word, byte = pairs.nonzero(as_tuple=True)
    flat = places[word] * _BYTES + byte
    return flat // one.shape[1], flat % one.shape[1]
