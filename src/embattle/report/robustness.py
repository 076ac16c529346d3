"""The robustness score as people read it: both readings side by side with their ten parts, and whether to believe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embattle.report.figures import Record, eps_decimal, eps_text, interval_text, number, value_text

MEANING = (
    "ERS, the empirical robustness score, is the mean of ten attacks, each on a scale from 0 (the system gives in) to 100 "
    "(it holds); ERS-legacy has GTM and LTM as the published implementation computes them and is there for comparison with "
    "published tables only."
)
_NAMES = {"ers": "ERS", "ers-legacy": "ERS-legacy"}


def robustness_view(summary: Record) -> dict[str, Any] | None:
    """What the page, the Markdown text and the terminal show of the score; None where the run is not about it.

    Args:
        summary: the content of `summary.json`.
    """
    told = summary.get("robustness")
    if told is None:
        return None
    return {
        "meaning": MEANING, "refused": told.get("refused") or "", "masked": masked_text(told),
        "points": [_point(point) for point in told["curve"]], "masking": list(told.get("masking") or ()),
    }  # fmt: skip


def _point(point: Record) -> dict[str, Any]:
    return {
        "eps": f"{eps_decimal(point['eps'])} ({eps_text(point['eps'])})",
        "scores": {_NAMES[name]: score_text(figure) for name, figure in point["figures"].items()},
        "rows": [_row(row) for row in point["parts"]],
        "missing": [
            f"{_NAMES[name]} has no value: {', '.join(parts)} {'was' if len(parts) == 1 else 'were'} not measured."
            for name, parts in point["missing"].items() if parts
        ],
    }  # fmt: skip


def _row(row: Record) -> dict[str, str]:
    """One part; what the legacy score shares with the other is not repeated."""
    ours, published = row["ers"], row["ers-legacy"]
    same = ours["threat"] == published["threat"]
    return {
        "part": str(row["part"]), "formula": str(row["formula"]), "threat": str(ours["threat"]),
        "measured": _measured(ours), "score": score_text(ours["score"]),
        "legacy_measured": "the same" if same else _measured(published), "legacy_score": score_text(published["score"]),
    }  # fmt: skip


def _measured(side: Record) -> str:
    figure = side["measured"]
    # Whatever a distance is measured in, the part's formula says; the word would only be in the way.
    plain = figure if figure is None or figure.get("unit") == "%" else {**figure, "unit": ""}
    return f"{value_text(plain)} {interval_text(plain)}".strip()


def score_text(figure: Record | None) -> str:
    """A score with its interval, one decimal each.

    >>> score_text({"value": 4.173, "ci": [3.01, 5.5], "unit": ""})
    '4.2 [3.0, 5.5]'
    """
    if figure is None or figure.get("value") is None:
        return "–"
    return f"{number(figure['value'], digits=1)} {interval_text(figure, digits=1)}".strip()


def masked_text(told: Record) -> str:
    """That the scores are too high because the gradients do not help, or an empty string."""
    failed = [str(check["check"]) for check in told.get("masking") or () if check["status"] == "FAIL"]
    if not failed:
        return ""
    return (
        f"The gradients of this model look masked ({'; '.join(failed)}: FAIL). The scores then tell how badly these "
        f"attacks work and not how well the system holds: an attacker who works around it needs less."
    )


def checks_text(told: Mapping[str, Any]) -> str:
    """How many of the gradient checks hold, in one line.

    >>> checks_text({"masking": [{"status": "ok"}, {"status": "warn"}]})
    '1 of 2 gradient checks ok, 1 warn'
    """
    statuses = [str(check["status"]) for check in told["masking"]]
    rest = "".join(f", {statuses.count(name)} {name}" for name in ("warn", "FAIL") if name in statuses)
    return f"{statuses.count('ok')} of {len(statuses)} gradient checks ok{rest}" if statuses else ""
