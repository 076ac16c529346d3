"""What the figures of a summary are called in plain words; the page, the Markdown text and the terminal share it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from embattle.records.grades import WITHSTOOD
from embattle.report.figures import Record, eps_decimal, eps_text, number, trim, value_text

UNGRADED = "–"
"""Stands where a grade would: the threat has no success figure, or is there for comparison only."""

_ITEMS, _TARGETS = "attacked items (--attacked)", "random targets (--targets)"

ACCESS = {
    "gradient": "gradients of the model (white box)",
    "embedding": "embeddings of pictures of their choice (black box)",
    "none": "nothing but pictures",
}


def grade_meanings() -> list[tuple[str, str]]:
    """What each grade says about the largest tested ε that a threat was withstood at, for the legend.

    >>> grade_meanings()[3]
    ('D', 'withstood at ε 0.01 (2/255)')
    """
    return [
        (letter, f"withstood at ε {limit} ({eps_text(limit)})" if limit else "withstood at none of these")
        for limit, letter in WITHSTOOD
    ]


def points(threat: Record) -> list[Record]:
    """The points of a threat's curve at which something was attacked (ε > 0), by rising ε."""
    return sorted((point for point in threat.get("curve", ()) if point["eps"] > 0), key=lambda point: float(point["eps"]))


def success(point: Record) -> Record | None:
    """The success figure of a point, or None where it is missing or has no value."""
    figure = point["figures"].get("success")
    return figure if figure is not None and figure.get("value") is not None else None


def grade(threat: Record) -> str:
    """The threat's grade; a dash where success was never defined, because "A" would be a claim nobody measured."""
    if not any(success(point) for point in points(threat)):
        return UNGRADED
    return str(threat.get("grade") or UNGRADED)


def grade_span(threat: Record) -> str:
    """The grades that the intervals allow, best to worst, where they are more than one; else an empty string.

    >>> point = {"eps": 0.1, "figures": {"success": {"value": 0.5}}}
    >>> grade_span({"grade": "C", "grade_range": ["B", "D"], "curve": [point]})
    'B–D'
    """
    best, worst = _ends(threat)
    return "" if best == worst else f"{best}–{worst}"


def _ends(threat: Record) -> tuple[str, str]:
    letter = grade(threat)
    # Summaries of earlier versions do not have the range.
    best, worst = threat.get("grade_range") or (letter, letter)
    return (letter, letter) if letter == UNGRADED else (str(best), str(worst))


def decisive_point(threat: Record) -> Record | None:
    """The point that half the attempts reach first, else the one with the largest ε; None for an empty curve."""
    attacked = points(threat)
    half = threat.get("half_eps")
    if half is not None:
        return next((point for point in attacked if math.isclose(point["eps"], half)), None)
    return attacked[-1] if attacked else None


def half_parts(threat: Record) -> tuple[str, str]:
    """The smallest tested ε that succeeds half of the time: as 255ths (or why there is none), and decimal."""
    if grade(threat) == UNGRADED:
        return "not graded", ""
    half = threat.get("half_eps")
    return ("not within tested range", "") if half is None else (eps_text(half), f"ε = {eps_decimal(half)}")


def half_text(threat: Record) -> str:
    """`half_parts` in one line."""
    told, decimal = half_parts(threat)
    return f"{told} ({decimal})" if decimal else told


def cost_text(threat: Record) -> str:
    """What one attacked picture costs at the decisive point.

    >>> cost_text({"curve": [{"eps": 0.1, "figures": {}, "cost": {"forwards": 31.0, "seconds": 0.25}}]})
    '31 forwards, 0.25 s'
    """
    point = decisive_point(threat)
    cost = (point or {}).get("cost") or {}
    parts = []
    if cost.get("forwards") is not None:
        parts.append(f"{trim(cost['forwards'], 1)} forwards")
    if cost.get("seconds") is not None:
        parts.append(f"{number(cost['seconds'])} s")
    told = ", ".join(parts) or "not recorded"
    return f"{told} for one perturbation" if parts and threat.get("shared") else told


def attack_text(attack: Record | None) -> str:
    """The attack and its settings in one line.

    >>> attack_text({"name": "apgd", "steps": 30, "restarts": 1})
    'apgd (steps 30, restarts 1)'
    """
    settings = dict(attack or {})
    name = str(settings.pop("name", "") or "not recorded")
    told = ", ".join(f"{key.replace('_', ' ')} {_setting(value)}" for key, value in settings.items() if value is not None)
    return f"{name} ({told})" if told else name


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def overall_grade(summary: Record) -> str:
    """The worst grade of all threats: a system is as strong as its weakest side. A dash while a run is unfinished."""
    if unfinished(summary):
        return UNGRADED
    letters = [letter for threat in summary.get("threats", ()) if (letter := grade(threat)) != UNGRADED]
    return max(letters, default=UNGRADED)


def overall_span(summary: Record) -> str:
    """The overall grades that the intervals allow, best to worst, where they are more than one; else an empty string."""
    ends = [_ends(threat) for threat in summary.get("threats", ()) if grade(threat) != UNGRADED]
    if unfinished(summary) or not ends:
        return ""
    best, worst = (max(letters) for letters in zip(*ends, strict=True))
    return "" if best == worst else f"{best}–{worst}"


def unfinished(summary: Record) -> str:
    """How much of an unfinished run is done, or an empty string.

    >>> unfinished({"complete": False, "units": {"done": 3, "planned": 12}})
    'unfinished: 3 of 12 units'
    """
    units = summary.get("units") or {}
    return (
        "" if summary.get("complete", True) else f"unfinished: {units.get('done', 0)} of {units.get('planned', '?')} units"
    )


def headline(summary: Record) -> str:
    """The overall grade in two or three words, with the range that the intervals allow; of an unfinished run none."""
    if told := unfinished(summary):
        return f"{told[0].upper()}{told[1:]}, no overall grade yet"
    span = overall_span(summary)
    return f"Overall grade {overall_grade(summary)}" + (f" ({span})" if span else "")


def range_text(summary: Record) -> str:
    """That the letters are not settled where the intervals allow others, and what to do; else an empty string."""
    threats = summary.get("threats", ())
    unsettled = [str(threat["threat"]) for threat in threats if grade_span(threat)]
    if not unsettled:
        return ""
    items, told = attacked_items(threats), attacked_title(threats).lower()
    more = {(_TARGETS if threat.get("shared") else _ITEMS) for threat in threats if grade_span(threat)}
    return (
        f"With {items:,} {told[:-1] if items == 1 else told} the 95 % intervals allow more than one grade of "
        f"{', '.join(unsettled)}: the range stands beside the letter. More {' and '.join(sorted(more))} narrow it down."
    )


def verdict(summary: Record) -> str:
    """One sentence about the weakest threat, for somebody who reads nothing else."""
    told = _verdict(summary)
    return f"So far, {sentence_part(told)}." if unfinished(summary) else told


def _verdict(summary: Record) -> str:
    graded = [threat for threat in summary.get("threats", ()) if grade(threat) != UNGRADED]
    if not graded:
        if summary.get("warnings"):
            return "No threat could be graded: see the warnings."
        return "No threat could be graded: no attack has a defined success figure."
    worst = graded[0]
    if worst.get("half_eps") is None:
        largest = max(point["eps"] for threat in graded for point in points(threat))
        return (
            "No tested threat succeeds in half of its attempts, up to the largest tested perturbation of "
            f"{eps_text(largest)}."
        )
    point = decisive_point(worst)
    reached = success(point) if point is not None else None
    share = f"{value_text(reached, digits=0)} of the attempts" if reached else "at least half of the attempts"
    return f"A perturbation of {eps_text(worst['half_eps'])} is enough to {sentence_part(worst['title'])} in {share}."


def verdict_criterion(summary: Record) -> str:
    """What counted as success for the threat the verdict names, or an empty string when it names none."""
    worst = next((threat for threat in summary.get("threats", ()) if grade(threat) != UNGRADED), None)
    return str(worst.get("criterion") or "").rstrip(".") if worst and worst.get("half_eps") is not None else ""


def sentence_part(title: str) -> str:
    """A title as part of a sentence: first letter small unless it starts an abbreviation, no full stop.

    >>> sentence_part("Push an item up."), sentence_part("QA plus")
    ('push an item up', 'QA plus')
    """
    title = title.strip().rstrip(".")
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def attacked_title(threats: Sequence[Record]) -> str:
    """What `attacked_items` counts."""
    return "Attacked items" if any(not threat.get("shared") for threat in threats) else "Perturbations"


def attacked_items(threats: Sequence[Record]) -> int:
    """How many items the best-covered threat attacked, counting undefined and failed ones.

    Where every threat learns a perturbation for many items, how many perturbations.

    >>> attacked_items([{"curve": [{"eps": .1, "figures": {"success": {"n": 61, "undefined": 2, "failed": 1}}}]}])
    64
    """
    single = [threat for threat in threats if not threat.get("shared")]
    return max(
        (
            int(figure.get("n") or 0) + int(figure.get("undefined") or 0) + int(figure.get("failed") or 0)
            for threat in single or threats
            for point in points(threat)
            for figure in point["figures"].values()
        ),
        default=0,
    )


def recall_at_1(summary: Record) -> Record | None:
    """The clean recall@1 figure, or None for data without labels."""
    figure = (summary.get("clean") or {}).get("recall@1")
    return figure if isinstance(figure, Mapping) else None


def state_text(summary: Record) -> str:
    """What is missing from the run, or an empty string for a finished one."""
    units = summary.get("units") or {}
    told = []
    if not summary.get("complete", True):
        told.append(
            f"This run is {unfinished(summary)} are done. Grades and figures are of what was measured so far, and the "
            "threats or ε still to come may show worse: the same command goes on."
        )
    if units.get("quarantined"):
        told.append(f"{units['quarantined']} units stopped with an error and are not in these figures.")
    return " ".join(told)
