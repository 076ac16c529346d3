"""Recall@k and MAP@R, leave-one-out: every picture queries all the others.

Ties are broken by position, as `index.ExactIndex` does: what is measured is the list that a user would see.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from embattle.errors import InputError
from embattle.metrics.scores import Scores
from embattle.records.intervals import mean_figure, rate_figure
from embattle.similarity import Similarity, against
from embattle.vectors import check_embeddings

# Rows of the similarity matrix held at a time: 512 x 100,000 float32 numbers are 200 MB.
_ROWS = 512


def recall_at_k(embeddings: Tensor, labels: Tensor, similarity: Similarity, k: int = 1) -> Scores:
    """Share of queries with a picture of their own class among their k nearest (Jégou et al., 2011; leave-one-out).

    Args:
        embeddings: (N, D) floats.
        labels: (N,) integers.
        similarity: what ranks them.
        k: length of the list, 1 <= k <= N - 1.

    Returns:
        1.0 or 0.0 for each query, NaN (undefined) for one without another picture of its class; the rate has a Wilson
        interval.

    Raises:
        InputError: shapes that do not fit, or k out of range.
        ModelError: unusable embeddings (not finite, zero under the cosine, all equal).

    >>> from embattle.similarity import Euclidean, against
    >>> z = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    >>> recall_at_k(z, torch.tensor([0, 0, 1, 1]), Euclidean()).figure.value
    1.0
    """
    _check(embeddings, labels, similarity)
    others = len(labels) - 1
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= others:
        raise InputError(f"recall@{k} over {len(labels)} pictures: k must be a whole number from 1 to {others}")
    parts = []
    for rows, scores in _leave_one_out(embeddings, similarity):
        same = labels[rows, None] == labels[None, :]
        same[torch.arange(len(rows)), rows] = False
        best, first = torch.where(same, scores, -torch.inf).max(1, keepdim=True)
        # max() may name any of several equal maxima: the first in position is the one a stable list shows.
        positions = torch.arange(scores.shape[1], device=scores.device)
        tied = scores == best
        first = torch.where(same & tied, positions, scores.shape[1]).amin(1, keepdim=True)
        before = ((scores > best) | (tied & (positions < first))).sum(1)
        hit = (before < k).double()
        parts.append(torch.where(same.any(1), hit, torch.nan))
    values = torch.cat(parts).cpu()
    flags = [None if value != value else value == 1.0 for value in values.tolist()]
    return Scores(values=values, figure=rate_figure(flags, higher_is_better=True))


def map_at_r(embeddings: Tensor, labels: Tensor, similarity: Similarity, *, seed: int = 0) -> Scores:
    """Mean average precision at R (Musgrave et al., A Metric Learning Reality Check, ECCV 2020, section 2.2).

    For a query whose class has R other pictures: 1/R · sum over the ranks i = 1..R of P(i) if the i-th is of the class,
    where P(i) is the precision among the first i.

    Args:
        embeddings: (N, D) floats.
        labels: (N,) integers.
        similarity: what ranks them.
        seed: seed of the bootstrap interval.

    Returns:
        A value in [0, 1] for each query, NaN (undefined) for one without another picture of its class.

    Raises:
        InputError: shapes that do not fit.
        ModelError: unusable embeddings (not finite, zero under the cosine, all equal).

    >>> from embattle.similarity import Euclidean, against
    >>> z = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    >>> map_at_r(z, torch.tensor([0, 1, 0, 0]), Euclidean()).values.tolist()
    [0.25, nan, 0.5, 0.5]
    """
    _check(embeddings, labels, similarity)
    parts = []
    for rows, scores in _leave_one_out(embeddings, similarity):
        same = labels[rows, None] == labels[None, :]
        relevant = same.sum(1) - 1
        longest = max(1, int(relevant.max()))
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :longest]
        hits = same.gather(1, order).double()
        ranks = torch.arange(1, longest + 1, device=scores.device)
        precision = hits.cumsum(1) / ranks
        inside = ranks <= relevant[:, None]
        # 0 / 0 is the NaN of a query without another picture of its class.
        parts.append((precision * hits * inside).sum(1) / relevant)
    values = torch.cat(parts).cpu()
    return Scores(values=values, figure=mean_figure(values.numpy(), unit="share", higher_is_better=True, seed=seed))


def _check(embeddings: Tensor, labels: Tensor, similarity: Similarity) -> None:
    check_embeddings(embeddings, similarity)
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"labels of type {labels.dtype} and shape {tuple(labels.shape)} for {len(embeddings)} embeddings: allowed "
            f"are integers ({len(embeddings)},)"
        )
    if len(labels) < 2:
        raise InputError("leave-one-out over 1 picture: at least 2 are needed")


def _leave_one_out(embeddings: Tensor, similarity: Similarity) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (positions of the queries, their similarities to all with their own at -inf)."""
    cross = against(similarity, embeddings)
    for rows in torch.arange(len(embeddings), device=embeddings.device).split(_ROWS):
        scores = cross(embeddings[rows])
        scores[torch.arange(len(rows)), rows] = -torch.inf
        yield rows, scores
