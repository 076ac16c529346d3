"""Draws training tuples inside a batch, from a generator of its own and never from a global one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from embattle.errors import DataError

# With fewer pictures of a class than this in a batch, most anchors would find no positive but themselves.
_FEWEST_TOGETHER = 2
# So many pictures of a class are then kept together.
_TOGETHER = 4


class OneClass(DataError):
    """A batch whose pictures are all of one class, so that there is nothing to tell apart."""


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Positions in a batch: anchor and positive share a class, the negative is of another; three (T,) int64."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor

    def __len__(self) -> int:
        return len(self.anchors)


def epoch_order(labels: Tensor | None, count: int, batch_size: int, rng: Generator) -> Tensor:
    """The order in which an epoch goes through its pictures, each once: (count,) int64.

    A plain shuffle, as in the ranking paper, unless the set has so many classes that a shuffled batch would hold fewer
    than two pictures of one: then pictures of a class stay together by four, and these groups are shuffled.

    Args:
        labels: (count,) integer class labels; None: there are none, and the shuffle is plain.
        count: of the pictures.
        batch_size: pictures a step.
        rng: where the order comes from.

    >>> labels = torch.arange(1000) // 4
    >>> order = epoch_order(labels, 1000, 100, np.random.default_rng(0))
    >>> len(labels[order][:100].unique())
    25
    """
    shuffled: np.ndarray = rng.permutation(count)
    if labels is None:
        return torch.from_numpy(shuffled)
    values = labels.detach().cpu().numpy()
    if batch_size >= _FEWEST_TOGETHER * len(np.unique(values)):
        return torch.from_numpy(shuffled)
    by_class = shuffled[np.argsort(values[shuffled], kind="stable")]
    starts = np.flatnonzero(np.diff(values[by_class], prepend=values[by_class[0]] - 1))
    within = np.arange(count) - np.repeat(starts, np.diff(starts, append=count))
    groups = np.cumsum(within % _TOGETHER == 0) - 1
    lots = rng.permutation(groups[-1] + 1)
    return torch.from_numpy(by_class[np.argsort(lots[groups], kind="stable")])


def in_batch_triplets(labels: Tensor, rng: Generator) -> Triplets:
    """Draws B // K triplets for each of the K classes present in a batch of B labels.

    Anchors and positives are uniform over the class, negatives uniform over all other classes, all with replacement; an
    anchor may be its own positive. Adversarial Ranking Attack and Defense (ECCV 2020), as in the authors' code, where
    K is always 10.

    Args:
        labels: (B,) integer class labels.
        rng: where the draws come from; the same state and labels give the same triplets.

    Raises:
        OneClass: fewer than two classes are present, so that there is no negative.

    >>> drawn = in_batch_triplets(torch.tensor([0, 0, 1, 1]), np.random.default_rng(0))
    >>> len(drawn), bool((drawn.anchors // 2 == drawn.positives // 2).all())
    (4, True)
    """
    values = labels.detach().cpu().numpy()
    classes = np.unique(values)
    if len(classes) < 2:
        raise OneClass(
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


def semi_hard(drawn: Triplets, distance: Tensor, labels: Tensor, margin: float, rng: Generator) -> Triplets:
    """The same anchors and positives, with negatives that are farther than the positive, but by less than the margin.

    Uniform among such negatives; a triplet for which the batch holds none keeps its own. FaceNet (CVPR 2015), section 3.2.

    Args:
        drawn: T triplets of a batch.
        distance: (B, B) distances between the batch's embeddings.
        labels: (B,) integer class labels.
        margin: of the triplet loss, in units of the distance.
        rng: where the draws come from.

    >>> distance = torch.tensor([[0.0, 0.1, 0.2, 0.9]]).expand(4, 4)
    >>> given = Triplets(anchors=torch.tensor([0]), positives=torch.tensor([1]), negatives=torch.tensor([3]))
    >>> semi_hard(given, distance, torch.tensor([0, 0, 1, 1]), 0.2, np.random.default_rng(0)).negatives
    tensor([2])
    """
    from_anchor = distance[drawn.anchors]
    to_positive = from_anchor.gather(1, drawn.positives[:, None])
    other = labels[drawn.anchors][:, None] != labels[None, :]
    fitting = other & (from_anchor > to_positive) & (from_anchor < to_positive + margin)
    return replace(drawn, negatives=_one_of(fitting, drawn.negatives, rng))


def soft_hard(drawn: Triplets, distance: Tensor, labels: Tensor, rng: Generator) -> Triplets:
    """The same anchors, with positives beyond the nearest negative and negatives within the farthest positive.

    Uniform among those; an anchor for which the batch holds none keeps its own. Roth et al., Revisiting Training Strategies
    and Generalization Performance in Deep Metric Learning (ICML 2020), as in the authors' code.

    Args:
        drawn: T triplets of a batch.
        distance: (B, B) distances between the batch's embeddings.
        labels: (B,) integer class labels.
        rng: where the draws come from.

    >>> distance = torch.tensor([[0.0, 0.3, 0.2, 0.9]]).expand(4, 4)
    >>> given = Triplets(anchors=torch.tensor([0]), positives=torch.tensor([0]), negatives=torch.tensor([3]))
    >>> found = soft_hard(given, distance, torch.tensor([0, 0, 1, 1]), np.random.default_rng(0))
    >>> found.positives, found.negatives
    (tensor([1]), tensor([2]))
    """
    from_anchor = distance[drawn.anchors]
    same = labels[drawn.anchors][:, None] == labels[None, :]
    nearest_negative = from_anchor.masked_fill(same, torch.inf).amin(1, keepdim=True)
    farthest_positive = from_anchor.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
    return replace(
        drawn,
        positives=_one_of(same & (from_anchor > nearest_negative), drawn.positives, rng),
        negatives=_one_of(~same & (from_anchor < farthest_positive), drawn.negatives, rng),
    )


def _one_of(fitting: Tensor, otherwise: Tensor, rng: Generator) -> Tensor:
    """In each row (T, B) the place of one that fits, (T,); where none does, the given one."""
    # The largest of uniform draws over the fitting ones is a uniform choice among them.
    lots = torch.from_numpy(rng.random(tuple(fitting.shape))).to(fitting.device).masked_fill(~fitting, -1)
    best, place = lots.max(1)
    return torch.where(best >= 0, place, otherwise)


def _positions(parts: list[np.ndarray], like: Tensor) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(device=like.device, dtype=torch.int64)
