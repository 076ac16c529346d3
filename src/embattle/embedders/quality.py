"""Is this a usable embedding at all? Checked once per gallery, before any figure is computed from it."""

from __future__ import annotations

import torch
from torch import Tensor

from embattle.errors import ModelError
from embattle.similarity import Similarity


def check_embeddings(z: Tensor, similarity: Similarity, *, what: str = "the model") -> Tensor:
    """Returns `z` (N, D) unchanged if figures can be computed from it.

    Raises:
        ModelError: values that are not finite; all embeddings equal (a collapsed model); under cosine, an embedding of
            length zero, which has no direction.
    """
    bad = (~torch.isfinite(z)).any(1)
    if bad.any():
        raise ModelError(
            f"{what} returned NaN or infinite embeddings for {int(bad.sum())} of {len(z)} pictures (first: number "
            f"{int(bad.nonzero()[0])}); check its weights, and mean/std if they were given"
        )
    if similarity.name == "cosine":
        zero = z.norm(dim=1) < 1e-12
        if zero.any():
            raise ModelError(
                f"{what} returned an all-zero embedding for {int(zero.sum())} of {len(z)} pictures (first: number "
                f"{int(zero.nonzero()[0])}); cosine needs a direction — use similarity='euclidean' or another layer"
            )
        z_compared = z / z.norm(dim=1, keepdim=True)
    else:
        z_compared = z
    if len(z) > 1 and float((z_compared - z_compared[:1]).abs().max()) < 1e-6 * max(1.0, float(z_compared.abs().max())):
        raise ModelError(
            f"{what} has collapsed: all {len(z)} embeddings are equal, so every ranking is arbitrary; check that "
            f"the weights were loaded and that the pictures differ"
        )
    return z
