"""The short table at the end of a run in the terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embattle.report import figures, phrases
from embattle.report.figures import Record

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
    table.add_column("Half succeed at ε", min_width=15)
    table.add_column("Success", justify="right")
    table.add_column("Rank or metric", justify="right")
    table.add_column("Forwards", justify="right")
    table.add_column("Seconds", justify="right")
    for threat in summary.get("threats", ()):
        point = phrases.decisive_point(threat)
        cost = (point or {}).get("cost") or {}
        grade = phrases.grade(threat)
        table.add_row(
            _text(grade, _COLOURS.get(grade, "")),
            _text(threat["title"]),
            _text(_half(threat, point)),
            _text(_success(point)),
            _text(_headline(threat, point)),
            _text(figures.number(cost.get("forwards"))),
            _text(figures.number(cost.get("seconds"))),
        )
    return table


def _text(value: object, style: str = "") -> Text:
    from rich.text import Text

    return Text(_CONTROL.sub(" ", str(value)), style=style)


def _half(threat: Record, point: Record | None) -> str:
    """The ε that all other figures of the row belong to, and whether half of the attempts succeed there."""
    if point is None:
        return "not measured"
    eps = f"{figures.eps_decimal(point['eps'])} ({figures.eps_text(point['eps'])})"
    return eps if threat.get("half_eps") is not None else f"none up to {eps}"


def _success(point: Record | None) -> str:
    figure = point["figures"].get("success") if point is not None else None
    left_out = figures.left_out_text(figure)
    return figures.figure_text(figure, digits=0) + (f" ({left_out})" if left_out else "")


def _headline(threat: Record, point: Record | None) -> str:
    """The headline metric on clean pictures and at the row's ε."""
    metric = threat.get("metric")
    if point is None or metric in (None, "success"):
        return "–"
    clean = next((other for other in threat["curve"] if other["eps"] == 0), None)
    after = figures.value_text(point["figures"].get(metric))
    told = f"{figures.value_text(clean['figures'].get(metric))} → {after}" if clean is not None else after
    return told if metric == "rank" else f"{metric} {told}"
