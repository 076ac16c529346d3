"""How far an attack moves an embedding."""

from __future__ import annotations

from torch import Tensor

from embattle.errors import InputError
from embattle.similarity import Similarity
from embattle.vectors import finite


def max_shift(clean: Tensor, adversarial: Tensor, similarity: Similarity) -> Tensor:
    """Distance between the embeddings of a picture and of its attacked copy (ECCV 2020, section 3.3).

    Args:
        clean: (n, D) embeddings of the clean pictures.
        adversarial: (n, D) embeddings of the attacked ones, in the same order.
        similarity: its distance is taken: 1 - cosine in [0, 2], or the Euclidean distance.

    Returns:
        (n,) float64.

    Raises:
        InputError: shapes that differ.
        ModelError: NaN or infinity.

    >>> import torch
    >>> from embattle.similarity import Cosine
    >>> max_shift(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), Cosine()).tolist()
    [1.0]
    """
    if clean.shape != adversarial.shape or clean.ndim != 2:
        raise InputError(
            f"clean embeddings {tuple(clean.shape)} and attacked ones {tuple(adversarial.shape)}: allowed are two "
            "equal shapes (n, D)"
        )
    finite(clean, "clean embeddings")
    finite(adversarial, "attacked embeddings")
    return similarity.distance(similarity.pair(clean.double(), adversarial.double()))
