"""Five checks that an attack's figures are about the model and not about gradients that do not help. No torch.

After Carlini et al. 2019 (*On Evaluating Adversarial Robustness*) and Athalye et al. 2018 (*Obfuscated Gradients Give a
False Sense of Security*). Judged from rows of a few pictures, each attacked in several ways: with gradients ("white") or
without ("black"), at several ε, with several numbers of steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from embattle.records.figure import Figure
from embattle.records.intervals import mean_figure, rate_figure

Row = Mapping[str, Any]
Status = Literal["ok", "warn", "FAIL"]
# What an attack without limits must reach, and the share of steps with a gradient that is asked for and needed.
_WINS, _LIVE, _DEAD = 0.95, 0.9, 0.5
# A difference below this share of the larger mean loss says nothing: the steps of a larger ε are coarser.
_TOLERANCE = 0.02
_BREAKS = "the model breaks under attack: look for what overflows or divides by zero"
_SMOOTH = "replace rounding, thresholds and saturated activations by something smooth when attacking (BPDA)"


class _Cells:
    """Rows by role, ε and steps, then by picture."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        white = [row for row in self.rows if row["role"] == "white"]
        self.eps = sorted({row["eps"] for row in white})
        # One number of steps is tried at every ε, the others at one only.
        tried = Counter(steps for _, steps in {(row["eps"], row["steps"]) for row in white})
        self.steps = max(tried, key=lambda steps: (tried[steps], steps), default=0)
        self.base = max((row["eps"] for row in white if row["eps"] < 1), default=1.0)

    def of(self, role: str, eps: float, steps: int | None = None) -> dict[str, Row]:
        """By picture."""
        return {
            row["sample"]: row
            for row in self.rows
            if row["role"] == role and row["eps"] == eps and steps in (None, row["steps"])
        }


def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The checks that can be judged, each with status, measured figures, what was found and what to do.

    Args:
        rows: "role", "eps", "steps", "sample", "loss" (how far the embedding moved; None: not finite), "success" and "live"
            (the share of steps that had a gradient; None without gradients).
    """
    if not rows:
        return []
    cells = _Cells(rows)
    looks: tuple[Callable[[_Cells], dict[str, Any] | None], ...] = (_budget, _unlimited, _black_box, _steps, _flat)
    return [check for look in looks if (check := look(cells)) is not None]


def _check(name: str, status: Status, figures: Mapping[str, Figure], finding: str, advice: str) -> dict[str, Any]:
    """A check as a record; pictures on which the model gave no finite embedding count against it."""
    broken = max((figure.failed for figure in figures.values()), default=0)
    whole = max((figure.n + figure.failed for figure in figures.values()), default=0)
    if broken:
        status = "FAIL" if status == "FAIL" or 2 * broken >= whole else "warn"
        finding = f"{finding}; {broken} of {whole} pictures gave NaN or infinity"
        advice = f"{_BREAKS}; otherwise, {advice}"
    return {
        "check": name, "status": status, "figures": {key: figure.to_json() for key, figure in figures.items()},
        "finding": finding, "advice": "" if status == "ok" else advice,
    }  # fmt: skip


def _gain(stronger: Mapping[str, Row], weaker: Mapping[str, Row]) -> tuple[Figure, Status] | None:
    """How much farther the attack that should be stronger moves the same pictures, and what that says."""
    both = [(stronger[sample]["loss"], weaker[sample]["loss"]) for sample in stronger if sample in weaker]
    if not both:
        return None
    pairs = [(more, less) for more, less in both if more is not None and less is not None]
    gains = [more - less for more, less in pairs]
    figure = mean_figure(gains, unit="", higher_is_better=False, failed=len(both) - len(pairs))
    if figure.value is None:
        return figure, "FAIL"
    slack = _TOLERANCE * max(sum(more for more, _ in pairs), sum(less for _, less in pairs)) / len(pairs)
    if figure.value >= -slack:
        # Where neither attack moved anything, none was weaker, and there is nothing to be content with.
        return figure, "ok" if slack > 0 else "warn"
    return figure, "FAIL" if figure.ci is None or figure.ci[1] < 0 else "warn"


def _worst(gains: Mapping[str, tuple[Figure, Status] | None]) -> tuple[dict[str, Figure], Status]:
    found = {name: gain for name, gain in gains.items() if gain is not None}
    order: tuple[Status, ...] = ("ok", "warn", "FAIL")
    worst: Status = order[max((order.index(status) for _, status in found.values()), default=0)]
    return {name: figure for name, (figure, _) in found.items()}, worst


def _told(figures: Mapping[str, Figure]) -> str:
    return "; ".join(f"{name}: {figure}" for name, figure in figures.items())


def _budget(cells: _Cells) -> dict[str, Any] | None:
    gains = {
        f"ε {small:.3g} to {large:.3g}": _gain(cells.of("white", large, cells.steps), cells.of("white", small, cells.steps))
        for small, large in pairwise(cells.eps)
    }
    figures, status = _worst(gains)
    if not figures:
        return None
    advice = "the attack gets stuck where it could go on: give it more steps or restarts, and " + _SMOOTH
    return _check("more ε is never weaker", status, figures, f"gain in shift, paired, {_told(figures)}", advice)


def _unlimited(cells: _Cells) -> dict[str, Any] | None:
    tried = cells.of("white", 1.0).values()
    if not tried:
        return None
    goals = [row["success"] for row in tried if row["loss"] is not None]
    figure = rate_figure(goals, higher_is_better=False, failed=len(tried) - len(goals))
    status, finding = _wins(figure)
    advice = "an attack that may change everything must win: its gradients do not lead anywhere; " + _SMOOTH
    return _check("ε = 1 wins at least 95 %", status, {"success": figure}, finding, advice)


def _wins(figure: Figure) -> tuple[Status, str]:
    if figure.value is None or figure.ci is None:
        return "FAIL", "nothing to judge by"
    status: Status = "ok" if figure.value >= _WINS else "warn" if figure.ci[1] >= _WINS else "FAIL"
    return status, f"wins {100 * figure.value:.0f} % of {figure.n} [{100 * figure.ci[0]:.0f}, {100 * figure.ci[1]:.0f}]"


def _black_box(cells: _Cells) -> dict[str, Any] | None:
    black = cells.of("black", cells.base)
    gain = _gain(cells.of("white", cells.base, cells.steps), black)
    if gain is None:
        return None
    figure, status = gain
    finding = f"white box minus black box at ε {cells.base:.3g}, paired: {figure}"
    if status == "warn":
        advice = (
            "guessing comes about as far as the gradient: the scores may be too high; attack with --attack apgd and more "
            "steps, and compare"
        )
    else:
        advice = "guessing beats the gradient, so the gradient is masked and every score is too high; " + _SMOOTH
    return _check("black box never beats white box", status, {"difference": figure}, finding, advice)


def _steps(cells: _Cells) -> dict[str, Any] | None:
    counts = sorted({row["steps"] for row in cells.rows if (row["role"], row["eps"]) == ("white", cells.base)})
    gains = {
        f"{few} to {many} steps": _gain(cells.of("white", cells.base, many), cells.of("white", cells.base, few))
        for few, many in pairwise(counts)
    }
    figures, status = _worst(gains)
    if not figures:
        return None
    advice = "the walk is not climbing: use Auto-PGD (--attack apgd), more restarts, and " + _SMOOTH
    return _check("more steps are never weaker", status, figures, f"gain in shift, paired, {_told(figures)}", advice)


def _flat(cells: _Cells) -> dict[str, Any] | None:
    tried = cells.of("white", cells.base, cells.steps).values()
    figure = mean_figure([row["live"] for row in tried], unit="share", higher_is_better=True)
    if figure.value is None:
        return None
    status: Status = "ok" if figure.value >= _LIVE else "warn" if figure.value >= _DEAD else "FAIL"
    finding = f"{100 * figure.value:.0f} % of the steps have a gradient that is not zero"
    return _check("the loss is not flat", status, {"live": figure}, finding, "the model hides its gradients; " + _SMOOTH)
