"""Two audits beside each other: a page with bars, the same as Markdown and JSON, and a table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embattle.records.atomic import write_atomic
from embattle.records.summary import write_json_atomic
from embattle.report.figures import Record, eps_decimal, eps_text, figure_text, interval_text, value_text
from embattle.report.html import template
from embattle.report.markdown import plain, table
from embattle.report.provenance import provenance_rows
from embattle.report.robustness import score_text
from embattle.report.svg import ATTACK, LINE, TEXT, drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group

# What a paired difference says, seen from the owner.
_HARDER, _EASIER, _SAME, _BROKEN = "harder", "easier", "no change seen", "broken pictures"
_KINDS = (_HARDER, _EASIER, _SAME, _BROKEN)
# Panels of a row of the chart, and letters of a line of their titles.
_COLUMNS, _TITLE_WIDTH = 3, 44
# A model whose embeddings differ so many times less than the other's has given up on telling pictures apart.
_COLLAPSED = 10


def change(difference: Record | None) -> str:
    """What a paired difference says: harder or easier to attack where its interval lies beyond 0.

    Where a model gave no finite embedding of some attacked pictures, the others being harder is no comfort, and not said.

    >>> change({"value": -0.4, "ci": [-0.5, -0.3], "higher_is_better": False})
    'harder'
    """
    if difference is None:
        return "not compared"
    broken = bool(difference.get("failed"))
    if difference.get("ci") is None:
        return _BROKEN if broken else "not compared"
    low, high = difference["ci"]
    if low <= 0 <= high:
        return _BROKEN if broken else _SAME
    if (low > 0) != difference["higher_is_better"]:
        return _EASIER
    return _BROKEN if broken else _HARDER


def headline(comparison: Record) -> str:
    """The comparison in a sentence or two: what attacks achieve now, the robustness score, the cost on clean pictures."""
    told = [_changes(comparison), _scores(comparison)]
    recall = comparison["clean"].get("recall@1")
    if recall is not None:
        told.append(f"Clean recall@1 {value_text(recall['first'])} → {value_text(recall['second'])}.")
    told.append(_collapse(comparison))
    return " ".join(sentence for sentence in told if sentence)


def _changes(comparison: Record) -> str:
    """How many attacks became harder or easier, by their successes and by how far they come."""
    first, second = comparison["names"]
    if not comparison["paired"]:
        return f"{first} and {second}, unpaired."
    rates = [change(figures["success"]["difference"]) for _, _, figures in _attacked(comparison) if "success" in figures]
    reach = [
        change(figures[threat["metric"]]["difference"])
        for threat, _, figures in _attacked(comparison)
        if threat["metric"] in figures
    ]
    told = [
        f"{what} {', '.join(f'{found.count(kind)} {kind}' for kind in _KINDS if found.count(kind))}"
        for what, found in (("success rates", rates), ("how far they come", reach))
        if found
    ]
    return f"Attacks on {second}: {'; '.join(told)}." if told else ""


def _scores(comparison: Record) -> str:
    """The score at the largest ε that both have one at, and whether it can be believed."""
    robustness = comparison.get("robustness")
    if not robustness or not robustness["curve"]:
        return ""
    lines = {line["name"]: line for line in robustness["curve"][-1]["lines"]}
    sides = [score_text(lines["ers"][side]) for side in ("first", "second")]
    hidden = [name for name, checks in zip(comparison["names"], robustness["masked"], strict=True) if checks]
    doubt = f" (gradients of {' and '.join(hidden)} look masked: not to be believed)" if hidden else ""
    return f"ERS {sides[0]} → {sides[1]}{doubt}."


def _attacked(comparison: Record) -> Iterator[tuple[Record, float, Mapping[str, Record]]]:
    """Every threat at every ε above 0, with its figures."""
    for threat in comparison["threats"]:
        for point in threat["points"]:
            if point["eps"] > 0:
                yield threat, point["eps"], point["figures"]


def write_comparison(folder: Path, comparison: dict[str, Any]) -> Path:
    """Writes comparison.json, comparison.md and report.html; the page is what is returned.

    Raises:
        InputError: the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    write_json_atomic(folder / "comparison.json", comparison)
    write_atomic(folder / "comparison.md", comparison_markdown(comparison).encode("utf-8", "replace"))
    page = folder / "report.html"
    write_atomic(page, comparison_html(comparison).encode("utf-8", "replace"))
    return page


def comparison_html(comparison: Record) -> str:
    """One page without script or request; the same comparison always gives the same text."""
    from markupsafe import Markup

    return template("comparison.html.j2").render(
        comparison=comparison, names=comparison["names"], headline=headline(comparison), bars=Markup(bars_svg(comparison)),
        rows=list(_rows(comparison)), clean=sorted(comparison["clean"].items()), notes=_notes(comparison),
        provenance=_provenance(comparison), training=_training(comparison), scores=_score_tables(comparison),
        reports=comparison.get("reports") or {},
    )  # fmt: skip


def comparison_markdown(comparison: Record) -> str:
    """The comparison as Markdown, for a pull request or a wiki."""
    first, second = map(plain, comparison["names"])
    threats = [
        [
            plain(row["title"]), row["eps"], plain(row["metric"]), figure_text(row["first"]), figure_text(row["second"]),
            f"{row['signed']} {row['interval']}".strip(), row["pairs"], row["change"],
        ]
        for row in _rows(comparison)
    ]  # fmt: skip
    clean = [
        [plain(name), figure_text(pair["first"]), figure_text(pair["second"])]
        for name, pair in sorted(comparison["clean"].items())
    ]
    trained = [[plain(name), plain(value)] for name, value in _training(comparison)]
    blocks = [
        f"# Embattle: {first} and {second}",
        plain(headline(comparison)),
        "## Without an attack\n\n" + table(["Figure", first, second], clean) if clean else "",
        *(
            f"## Robustness score at ε = {each['eps']}\n\n"
            + table(["Part", first, second], [[plain(name), *sides] for name, *sides in each["lines"]])
            for each in _score_tables(comparison)
        ),
        "## Under attack\n\n" + table(["Threat", "ε", "Figure", first, second, "Difference", "Pairs", "Change"], threats),
        "## Cost of the training\n\n" + table(["", ""], trained) if trained else "",
        "## Notes\n\n" + "\n".join(f"- {plain(note)}" for note in _notes(comparison)) if _notes(comparison) else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def comparison_table(comparison: Record) -> Group:
    """Success before and after at every ε, for the terminal; fits 80 columns."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("Threat", min_width=16)
    shown.add_column("ε", no_wrap=True)
    for name in comparison["names"]:
        shown.add_column(f"Success, {name}", justify="right")
    shown.add_column("Change")
    for row in _rows(comparison):
        if row["name"] == "success":
            values = (value_text(row[side]) for side in ("first", "second"))
            shown.add_row(*map(Text, (row["threat"], row["eps"], *values, row["change"])))
    return Group(shown, Text(headline(comparison), style="bold"))


def _rows(comparison: Record) -> Iterator[dict[str, Any]]:
    """A line for each threat, ε and figure: success and the headline metric."""
    for threat, eps, figures in _attacked(comparison):
        for name in dict.fromkeys(("success", str(threat["metric"]))):
            if name not in figures:
                continue
            cell = figures[name]
            told = (threat["metrics"].get(name) or {}).get("title") or "attempts that succeed"
            difference = cell["difference"]
            yield {
                "threat": str(threat["threat"]), "title": str(threat["title"]), "name": name, "metric": str(told),
                "eps": eps_decimal(eps), "levels": eps_text(eps), "first": cell["first"], "second": cell["second"],
                "difference": difference, "signed": "–" if difference is None else _signed(difference),
                "interval": _interval(difference), "pairs": "–" if difference is None else str(difference["n"]),
                "change": change(difference),
            }  # fmt: skip


def _interval(difference: Record | None) -> str:
    """The interval of a difference; none where all pairs changed alike, which is no certainty but too few pairs."""
    if difference is None or difference.get("ci") is None or difference["ci"][0] == difference["ci"][1]:
        return ""
    return interval_text(difference)


def _score_tables(comparison: Record) -> list[dict[str, Any]]:
    """Both scores and their parts, a table for every ε: name, first, second."""
    robustness = comparison.get("robustness") or {"curve": ()}
    titles = {"ers": "ERS", "ers-legacy": "ERS-legacy"}
    return [
        {
            "eps": f"{eps_decimal(point['eps'])} ({eps_text(point['eps'])})",
            "lines": [
                (titles.get(line["name"], line["name"]), score_text(line["first"]), score_text(line["second"]))
                for line in point["lines"]
            ],
        }
        for point in robustness["curve"]
    ]


def _signed(figure: Record) -> str:
    """A difference with its sign, and without one where it rounds to nothing.

    >>> _signed({"value": 0.25, "unit": "share"}), _signed({"value": -0.0001, "unit": "share"})
    ('+25.0 %', '0.0 %')
    """
    told = value_text(figure)
    if not told.strip("-0. %"):
        return told.removeprefix("-")
    return told if told.startswith(("-", "undefined")) else f"+{told}"


def _notes(comparison: Record) -> list[str]:
    first, second = comparison["names"]
    notes = list(_spread(comparison))
    if comparison["paired"]:
        notes.append(
            f"Differences are {second} minus {first} on the same pictures, averaged picture by picture; brackets hold 95 % "
            f"intervals. A change is named where the interval lies beyond 0, without correction for looking at many; "
            f"pictures are broken where a model gave NaN or infinity under attack. Pairs are pictures on which both runs "
            f"have the figure: an attempt whose goal held already has no success in its run."
        )
    else:
        notes.append("The two runs searched different galleries, so pictures cannot be paired and no change is named.")
    notes += [f"Otherwise set: {told}." for told in comparison["settings"]]
    notes += [f"{name} is in one of the runs only." for name in comparison["left_out"]]
    if not comparison["complete"]:
        notes.append("One of the runs is unfinished: figures may rest on fewer pictures than planned.")
    return notes + list(comparison.get("notes") or ())


def _spread(comparison: Record) -> Iterator[str]:
    """How much embeddings differ in either run; runs of earlier versions do not say."""
    if spreads := _spreads(comparison):
        told = " and ".join(f"{100 * value:.3g} % in {name}" for name, value in spreads.items())
        yield f"Embeddings of different pictures differ by this much of their length: {told}."


def _spreads(comparison: Record) -> Mapping[str, float]:
    found = {
        name: run["subject"]["spread"]
        for name, run in zip(comparison["names"], comparison["runs"], strict=True)
        if "spread" in run["subject"]
    }
    return found if len(found) == len(comparison["names"]) else {}


def _collapse(comparison: Record) -> str:
    """Whether one of the models has all but collapsed."""
    spreads = _spreads(comparison)
    if not spreads:
        return ""
    least, most = sorted(spreads, key=spreads.__getitem__)
    collapsed = spreads[least] * _COLLAPSED < spreads[most]
    return f"The model of {least} has nearly collapsed: whatever its other figures." if collapsed else ""


def _training(comparison: Record) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in (comparison.get("training") or {}).items()]


def _provenance(comparison: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(name, provenance_rows(run)) for name, run in zip(comparison["names"], comparison["runs"], strict=True)]


def bars_svg(comparison: Record) -> str:
    """Success of every threat at every ε: a bar for the first run beside one for the second, with their intervals."""
    threats = [
        (threat, found)
        for threat in comparison["threats"]
        if (found := [point for point in threat["points"] if point["eps"] > 0 and _defined(point)])
    ]
    if not threats:
        return ""
    columns = min(_COLUMNS, len(threats))
    rows = -(-len(threats) // columns)

    def draw(figure: Figure) -> None:
        grid = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).flatten()
        for axes in grid[len(threats) :]:
            axes.axis("off")
        for axes, (threat, found) in zip(grid, threats, strict=False):
            _bars(axes, found)
            axes.set_title(textwrap.fill(str(threat["title"]), _TITLE_WIDTH), pad=8)

    label = "; ".join(
        f"{row['title']} at ε {row['eps']}: {figure_text(row['first'])} and {figure_text(row['second'])}"
        for row in _rows(comparison)
        if row["name"] == "success"
    )
    return drawn(draw, size=(13, 2.9 * rows), prefix="bars", label=f"Share of attempts that succeed. {label}.")


def _defined(point: Record) -> bool:
    success = point["figures"].get("success")
    return success is not None and any(success[side]["value"] is not None for side in ("first", "second"))


def _bars(axes: Any, found: list[Record]) -> None:
    places = np.arange(len(found))
    for shift, side, colour in ((-0.2, "first", ATTACK), (0.2, "second", LINE)):
        figures = [point["figures"]["success"][side] for point in found]
        values = np.array([100 * (figure["value"] or 0.0) for figure in figures])
        ends = [figure["ci"] or (figure["value"] or 0.0,) * 2 for figure in figures]
        errors = np.abs(np.array([[100 * end for end in pair] for pair in ends]).T - values)
        axes.bar(places + shift, values, width=0.36, color=colour, yerr=errors, error_kw={"ecolor": TEXT, "capsize": 3})
    axes.set_xticks(places, [f"{eps_decimal(point['eps'])}\n{eps_text(point['eps'])}" for point in found])
    axes.set_ylim(0, 104)
