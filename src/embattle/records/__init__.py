"""Records of a run: figures, units of work, their store, gates, grades, the summary. Needs numpy, not torch."""

from embattle.records.atomic import write_atomic
from embattle.records.comparison import build_comparison
from embattle.records.figure import Figure
from embattle.records.gates import Gate, GateResult, parse_gate
from embattle.records.grades import grade, grade_range, half_eps, withstood
from embattle.records.hardening import build_hardening
from embattle.records.intervals import bootstrap_mean, mean_figure, mean_figures, rate_figure, wilson
from embattle.records.masking import judge
from embattle.records.reproduction import Published, build_reproduction
from embattle.records.robustness import build_robustness, empirical_robustness
from embattle.records.store import LocalStore
from embattle.records.summary import build_summary, load_summary, write_json_atomic
from embattle.records.transfer import build_transfer
from embattle.records.unit import Unit, canonical_json

__all__ = [
    "Figure",
    "Gate",
    "GateResult",
    "LocalStore",
    "Published",
    "Unit",
    "bootstrap_mean",
    "build_comparison",
    "build_hardening",
    "build_reproduction",
    "build_robustness",
    "build_summary",
    "build_transfer",
    "canonical_json",
    "empirical_robustness",
    "grade",
    "grade_range",
    "half_eps",
    "judge",
    "load_summary",
    "mean_figure",
    "mean_figures",
    "parse_gate",
    "rate_figure",
    "wilson",
    "withstood",
    "write_atomic",
    "write_json_atomic",
]
