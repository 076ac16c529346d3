"""What embeddings must be before anything can be ranked by them or measured on them."""

from __future__ import annotations

import torch
from torch import Tensor

from embattle.errors import InputError, ModelError
from embattle.similarity import Similarity

# Embeddings closer than this, relative to their size, are equal up to float32 rounding.
_EQUAL = 1e-6
# A vector shorter than this has no direction.
_ZERO = 1e-12


def finite(embeddings: Tensor, what: str) -> None:
    """Checks (..., D) embeddings.

    Raises:
        InputError: not at least two axes, or no row.
        ModelError: NaN or infinity among them.
    """
    if embeddings.ndim < 2 or not embeddings.is_floating_point() or 0 in embeddings.shape:
        raise InputError(
            f"{what} of type {embeddings.dtype} and shape {tuple(embeddings.shape)}: allowed are floats (..., D) with "
            "at least one row and D >= 1"
        )
    bad = ~torch.isfinite(embeddings).flatten(0, -2).all(-1)
    if bool(bad.any()):
        raise ModelError(
            f"{int(bad.sum())} of {len(bad)} {what} are NaN or infinite (the first is number {int(bad.nonzero()[0])}); "
            "check the model's weights and its mean and std"
        )


def check_embeddings(embeddings: Tensor, similarity: Similarity, what: str = "embeddings") -> Tensor:
    """Returns (N, D) embeddings unchanged if they can be ranked among each other.

    Args:
        embeddings: (N, D) floats.
        similarity: what will rank them.
        what: what to call them in a message.

    Raises:
        InputError: not (N, D).
        ModelError: NaN or infinity, a zero embedding under the cosine, or all embeddings equal (a collapsed model).
    """
    finite(embeddings, what)
    if embeddings.ndim != 2:
        raise InputError(f"{what} of shape {tuple(embeddings.shape)}: allowed is (N, D)")
    compared = embeddings
    if similarity.name == "cosine":
        length = embeddings.norm(dim=1, keepdim=True)
        zero = (length < _ZERO).flatten().nonzero()
        if len(zero):
            raise ModelError(
                f"{len(zero)} of {len(embeddings)} {what} are all zeros (the first is number {int(zero[0])}), and the "
                "cosine of a zero vector is undefined; use similarity='euclidean', or take the embedding from another layer"
            )
        compared = embeddings / length
    spread = float((compared - compared[:1]).abs().max())
    if len(embeddings) > 1 and spread <= _EQUAL * float(compared.abs().max()):
        raise ModelError(
            f"all {len(embeddings)} {what} are equal: the model has collapsed and every ranking would be arbitrary; "
            "check that its weights were loaded and that the pictures differ"
        )
    return embeddings


def spread(embeddings: Tensor) -> float:
    """How much embeddings differ, as a share of their length: their distance from the mean one, both root mean squares.

    0 where a model gives every picture the same embedding, and up to about 1 where they point everywhere.

    Args:
        embeddings: (N, D) floats.

    >>> spread(torch.eye(2)), spread(torch.ones(2, 3))
    (0.7071067690849304, 0.0)
    """
    return float((embeddings - embeddings.mean(0)).norm() / embeddings.norm().clamp_min(_ZERO))
