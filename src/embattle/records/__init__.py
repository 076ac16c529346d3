"""Records of a run: figures with intervals, units of work and their store. Needs numpy and nothing heavier."""

from embattle.records.figure import Figure
from embattle.records.intervals import bootstrap_mean, mean_figure, rate_figure, wilson
from embattle.records.store import LocalStore
from embattle.records.unit import Unit, canonical_json

__all__ = [
    "Figure",
    "LocalStore",
    "Unit",
    "bootstrap_mean",
    "canonical_json",
    "mean_figure",
    "rate_figure",
    "wilson",
]
