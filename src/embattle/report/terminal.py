"""The short table at the end of a run in the terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embattle.report import figures, phrases
from embattle.report.figures import Record
from embattle.report.robustness import checks_text, robustness_view

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_COLOURS = {"A": "green", "B": "green", "C": "yellow", "D": "red", "F": "bold red"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def terminal_table(summary: Record) -> Group:
    """Threats, weakest first, as a rich table with the verdict below it.

    Args:
        summary: the content of `summary.json`.

    Returns:
        Table and verdict, to print with `rich.console.Console.print`; they fit 80 columns, and text from outside holds no
        markup and no control characters.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table

    subject = summary.get("subject") or {}
    table = Table(
        box=box.SIMPLE_HEAD,
        title=safe_text(f"{subject.get('model', 'model')} on {subject.get('data', 'data')}", "bold"),
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("Grade", justify="center", no_wrap=True)
    table.add_column("Threat", min_width=14)
    table.add_column("Half at ε", no_wrap=True, max_width=12)
    table.add_column("Success", justify="right", no_wrap=True)
    table.add_column("Metric", justify="right")
    table.add_column("Cost", justify="right", no_wrap=True)
    for threat in summary.get("threats", ()):
        point = phrases.decisive_point(threat)
        cost = (point or {}).get("cost") or {}
        table.add_row(
            _grade(threat),
            _lines(threat["title"], threat["threat"]),
            _half(threat, point),
            _success(point),
            _headline(threat, point),
            _lines(f"{figures.number(cost.get('forwards'))} fwd", f"{figures.number(cost.get('seconds'), digits=2)} s"),
        )
    verdict = safe_text(f"{phrases.headline(summary)}. {phrases.verdict(summary)}", "bold")
    unsettled = phrases.range_text(summary)
    return Group(table, verdict, *([safe_text(unsettled)] if unsettled else []), *_robustness(summary))


def _robustness(summary: Record) -> list[Table | Text]:
    """Both scores with their ten parts, for every ε, and what the gradient checks found amiss."""
    from rich import box
    from rich.table import Table

    view = robustness_view(summary)
    if view is None:
        return []
    told: list[Table | Text] = [safe_text("")]
    for point in view["points"]:
        title = safe_text(f"Robustness score at ε {point['eps']}", "bold")
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
        for name in ("Part", "Measured", "ERS", "ERS-legacy"):
            table.add_column(name, justify="left" if name == "Part" else "right", no_wrap=True)
        for row in point["rows"]:
            table.add_row(*(safe_text(row[name]) for name in ("part", "measured", "score", "legacy_score")))
        table.add_row(safe_text("mean", "bold"), "", *(safe_text(text, "bold") for text in point["scores"].values()))
        told += [table, *(safe_text(sentence) for sentence in point["missing"])]
    told += [safe_text(text) for text in (view["refused"], view["masked"]) if text]
    amiss = [check for check in view["masking"] if check["status"] != "ok"]
    told += [safe_text(f"{check['status']}  {check['check']}: {check['finding']}; {check['advice']}") for check in amiss]
    return [*told, safe_text(checks_text(view)), safe_text(view["meaning"])]


def _grade(threat: Record) -> Text:
    """The letter, and below it the letters that the intervals allow."""
    letter, span = phrases.grade(threat), phrases.grade_span(threat)
    told = safe_text(letter, _COLOURS.get(letter, ""))
    return told.append(f"\n{span}", "") if span else told


def without_control(value: object) -> str:
    r"""Text from outside, with a space for each control character.

    >>> without_control("a\x1b[1mb")
    'a [1mb'
    """
    return _CONTROL.sub(" ", str(value))


def safe_text(value: object, style: str = "") -> Text:
    """Text from outside: without control characters, and never read as markup."""
    from rich.text import Text

    return Text(without_control(value), style=style)


def _half(threat: Record, point: Record | None) -> Text:
    """The ε that all other figures of the row belong to, and whether half of the attempts succeed there."""
    if point is None:
        return safe_text("not measured")
    eps, levels = figures.eps_decimal(point["eps"]), figures.eps_text(point["eps"])
    return _lines("" if threat.get("half_eps") is not None else "none up to", eps, levels)


def _lines(*lines: str) -> Text:
    from rich.text import Text

    return Text("\n").join(safe_text(line) for line in lines if line)


def _success(point: Record | None) -> Text:
    figure = point["figures"].get("success") if point is not None else None
    return _lines(figures.figure_text(figure, digits=0), figures.left_out_text(figure))


def _headline(threat: Record, point: Record | None) -> Text:
    """The headline metric on clean pictures and at the row's ε."""
    metric = threat.get("metric")
    if point is None or metric in (None, "success"):
        return safe_text("–")
    clean = next((other for other in threat["curve"] if other["eps"] == 0), None)
    before = f"{figures.value_text(clean['figures'].get(metric))} →" if clean is not None else ""
    name = "" if metric == "rank" else str(metric)
    return _lines(name, before, figures.value_text(point["figures"].get(metric)))
