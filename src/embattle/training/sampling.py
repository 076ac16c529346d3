"""Draws training tuples inside a batch, from a generator of its own and never from a global one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from embattle.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Positions in a batch: anchor and positive share a class, the negative is of another; three (T,) int64."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor

    def __len__(self) -> int:
        return len(self.anchors)


def in_batch_triplets(labels: Tensor, rng: Generator) -> Triplets:
    """Draws B // K triplets for each of the K classes present in a batch of B labels.

    Anchors and positives are uniform over the class, negatives uniform over all other classes, all with replacement; an
    anchor may be its own positive. Adversarial Ranking Attack and Defense (ECCV 2020), as in the authors' code, where
    K is always 10.

    Args:
        labels: (B,) integer class labels.
        rng: where the draws come from; the same state and labels give the same triplets.

    Raises:
        DataError: fewer than two classes are present, so that there is no negative.

    >>> drawn = in_batch_triplets(torch.tensor([0, 0, 1, 1]), np.random.default_rng(0))
    >>> len(drawn), bool((drawn.anchors // 2 == drawn.positives // 2).all())
    (4, True)
    """
    values = labels.detach().cpu().numpy()
    classes = np.unique(values)
    if len(classes) < 2:
        raise DataError(
            f"a batch of {len(values)} pictures holds {len(classes)} class(es), but a triplet needs two; use a larger "
            "batch_size, or a data set with at least two classes"
        )
    each = max(1, len(values) // len(classes))
    anchors, positives, negatives = [], [], []
    for label in classes:
        same, other = np.flatnonzero(values == label), np.flatnonzero(values != label)
        anchors.append(rng.choice(same, each))
        positives.append(rng.choice(same, each))
        negatives.append(rng.choice(other, each))
    return Triplets(
        anchors=_positions(anchors, labels),
        positives=_positions(positives, labels),
        negatives=_positions(negatives, labels),
    )


def _positions(parts: list[np.ndarray], like: Tensor) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(device=like.device, dtype=torch.int64)
