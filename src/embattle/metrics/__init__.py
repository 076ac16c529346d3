"""What is measured on embeddings: ranks, recall, mean average precision, shifts, success; with n and an interval.

Metrics take tensors, are evaluated and never differentiated; the attacks' objectives are separate on purpose.
"""

from __future__ import annotations

from embattle.metrics.rank import normalised_rank, ranks, success_at_rank
from embattle.metrics.recall import map_at_r, recall_at_k
from embattle.metrics.scores import Scores
from embattle.metrics.shift import max_shift

__all__ = ["Scores", "map_at_r", "max_shift", "normalised_rank", "ranks", "recall_at_k", "success_at_rank"]
