"""Per-query values of a metric together with the figure made from them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embattle.records.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A metric's value for every query and its mean with an interval.

    Args:
        values: (n,) float64; NaN where the metric is undefined for a query.
        figure: the mean or rate over the defined values.
    """

    values: Tensor
    figure: Figure

    def __str__(self) -> str:
        return str(self.figure)
