"""The short table at the end of a run in the terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embattle.report import phrases
from embattle.report.phrases import Record

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_COLOURS = {"A": "green", "B": "green", "C": "yellow", "D": "red", "F": "bold red"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def terminal_table(summary: Record) -> Table:
    """Threats, weakest first, as a rich table with the verdict below it.

    Args:
        summary: the content of `summary.json`.

    Returns:
        A table to print with `rich.console.Console.print`; text from outside holds no markup and no control characters.
    """
    from rich import box
    from rich.table import Table

    subject = summary.get("subject") or {}
    table = Table(
        box=box.SIMPLE_HEAD,
        title=_text(f"{subject.get('model', 'model')} on {subject.get('data', 'data')}", "bold"),
        title_justify="left",
        caption=_text(f"Overall grade {phrases.overall_grade(summary)}. {phrases.verdict(summary)}"),
        caption_justify="left",
    )
    table.add_column("Grade", justify="center", no_wrap=True)
    table.add_column("Threat", min_width=16)
    table.add_column("Half the time at", min_width=12)
    table.add_column("Success", justify="right")
    table.add_column("Rank or metric", justify="right")
    table.add_column("Cost per image", justify="right")
    for threat in summary.get("threats", ()):
        point = phrases.decisive_point(threat)
        grade = phrases.grade(threat)
        table.add_row(
            _text(grade, _COLOURS.get(grade, "")),
            _text(threat["title"]),
            _text(phrases.half_text(threat)),
            _text(_success(point)),
            _text(_headline(threat, point)),
            _text(phrases.cost_text(threat)),
        )
    return table


def _text(value: object, style: str = "") -> Text:
    from rich.text import Text

    return Text(_CONTROL.sub(" ", str(value)), style=style)


def _success(point: Record | None) -> str:
    if point is None:
        return "not measured"
    figure = phrases.success(point)
    left_out = phrases.left_out_text(point["figures"].get("success"))
    told = f"{phrases.figure_text(figure, digits=0)} at {phrases.eps_decimal(point['eps'])}" if figure else "undefined"
    return told + (f" ({left_out})" if left_out else "")


def _headline(threat: Record, point: Record | None) -> str:
    """The headline metric on clean pictures and at the decisive ε."""
    metric = threat.get("metric")
    if point is None or metric in (None, "success"):
        return "–"
    clean = next((other for other in threat["curve"] if other["eps"] == 0), None)
    after = phrases.value_text(point["figures"].get(metric))
    before = phrases.value_text(clean["figures"].get(metric)) if clean is not None else ""
    return f"{metric} {before} → {after}" if before else f"{metric} {after}"
