"""A transfer for people: summary.json, one HTML page with a heat map for every threat, Markdown, a terminal table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embattle.report import figures, phrases
from embattle.report.figures import Record, eps_decimal, eps_text, figure_text, value_text
from embattle.report.heat_map import CLEAN, heat_map_svg, strongest_transfer
from embattle.report.html import finding_view, template
from embattle.report.markdown import code, plain, table
from embattle.report.pictures import PictureSheet
from embattle.report.provenance import provenance_rows

if TYPE_CHECKING:
    from rich.console import Group

FINDINGS_SHOWN = 4
"""Findings shown per threat; the rest stay in the run folder."""


def write_transfer(run: Path, record: Record) -> Path:
    """Writes summary.json, report.html and result.md of a transfer; whoever looks sees old files or whole new ones.

    Args:
        run: its folder, with the pictures of its findings.
        record: as `embattle.records.build_transfer` gives it.

    Returns:
        The page.

    Raises:
        InputError: the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    from embattle.records.atomic import write_atomic
    from embattle.records.store import LocalStore
    from embattle.records.summary import write_json_atomic

    write_json_atomic(run / "summary.json", record)
    write_atomic(run / "result.md", render_transfer_markdown(record).encode("utf-8", "replace"))
    target = run / "report.html"
    write_atomic(target, render_transfer(record, LocalStore(run).blob).encode("utf-8", "replace"))
    return target


def render_transfer(record: Record, blob: Callable[[str, str], bytes]) -> str:
    """The page of a transfer.

    Args:
        record: its record.
        blob: gives the bytes of a picture from its unit id and name.

    Returns:
        HTML with inline styles and pictures; the same record and pictures always give the same text.
    """
    sheet = PictureSheet(blob)
    names = [str(model["name"]) for model in record["models"]]
    threats = [_threat_view(record, threat, names, number, sheet) for number, threat in enumerate(record["threats"])]
    first: Record = record["models"][0] if record["models"] else {}
    return template("transfer.html.j2").render(
        record=record,
        models=record["models"],
        threats=threats,
        headline=headline(record),
        state=phrases.state_text(record),
        data=first.get("data"),
        gallery=first.get("gallery"),
        pairs=_pairs(record),
        attacked=_attacked(record),
        thumbnails=list(sheet.thumbnails.values()),
        problems=sheet.problems,
        provenance=_provenance(record),
        methods=_methods(record),
    )


def render_transfer_markdown(record: Record) -> str:
    """The matrices and where they come from, as Markdown in which everything from outside is escaped."""
    data = next((plain(model["data"]) for model in record["models"]), "data")
    blocks = [
        f"# Embattle transfer: {', '.join(plain(model['name']) for model in record['models'])} on {data}",
        f"**{plain(headline(record))}**",
        plain(phrases.state_text(record)),
        *(block for threat in record["threats"] for block in _markdown_threat(record, threat)),
        "\n".join(f"- {line}" for line in _notes(record)),
        _cost_text(record),
        "## Where these figures come from",
        "\n".join(
            f"- {plain(name)}: {code(value) if name == 'Command' else plain(value)}" for name, value in _provenance(record)
        ),
        f"Intervals: 95 %, by {plain('; '.join(_methods(record)))}." if _methods(record) else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def transfer_tables(record: Record) -> Group:
    """For the terminal: each threat's matrix at the largest ε, how to read it, and the strongest transfer in a sentence."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for threat in record["threats"]:
        for matrix in threat["matrices"][-1:]:
            title = f"{threat['threat']} at ε {eps_decimal(matrix['eps'])}: {_metric(threat)} / attempts that succeed"
            made = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
            made.add_column("crafted on")
            for name in _names(record):
                made.add_column(Text(name), justify="right")
            for source, cells in _lines(record, threat, matrix):
                made.add_row(Text(source), *(Text(cell) for cell in cells))
            parts.append(made)
    return Group(*parts, Text(_how_to_read(record)), Text(headline(record), style="bold"))


def _metric(threat: Record) -> str:
    """The headline metric, and which way is good."""
    told = threat["metrics"].get(threat["metric"])
    return (
        f"{threat['metric']} ({'higher' if told['higher_is_better'] else 'lower'} is better)" if told else threat["metric"]
    )


def _how_to_read(record: Record) -> str:
    smaller = any(len(threat["matrices"]) > 1 for threat in record["threats"])
    return (
        f"The fewer attempts succeed, the better for you.{' Matrices of smaller ε are in the report.' if smaller else ''}"
    )


def headline(record: Record) -> str:
    """The strongest transfer between two different models, in a sentence."""
    found = [(threat, *best) for threat in record["threats"] if (best := strongest_transfer(threat)) is not None]
    if not found:
        return "No transfer could be measured: no attack on another model has a defined success figure."
    threat, matrix, cell = max(found, key=lambda entry: entry[2]["figures"]["success"]["value"])
    if not cell["figures"]["success"]["value"]:
        return "No picture crafted on one model succeeds on another one, within what was tested."
    return f"Strongest transfer: {_told(threat, matrix, cell)}."


def _told(threat: Record, matrix: Record, cell: Record) -> str:
    by_itself = (each for each in matrix["cells"] if each["white_box"] and each["target"] == cell["target"])
    own = next((each["figures"]["success"] for each in by_itself), None)
    known = own is not None and own["value"] is not None
    beside = f"; crafted on that model itself, {value_text(own, digits=0)}" if known else ""
    share = figure_text(cell["figures"]["success"], digits=0)
    return (
        f"to {phrases.sentence_part(threat['title'])} on {cell['target']}, pictures crafted on {cell['source']} within ε = "
        f"{eps_decimal(matrix['eps'])} succeed in {share} of the attempts{beside}"
    )


def _threat_view(record: Record, threat: Record, names: list[str], number: int, sheet: PictureSheet) -> dict[str, Any]:
    from markupsafe import Markup

    anchor = f"threat-{number + 1}"
    best = strongest_transfer(threat)
    mine = [finding for finding in record["findings"] if finding["threat"] == threat["threat"]]
    # Small changes say more than large ones.
    shown = sorted(mine, key=lambda finding: float(finding["eps"]))[:FINDINGS_SHOWN]
    matrices = [
        {
            "eps": matrix["eps"], "cells": [*threat["clean"], *matrix["cells"]],
            "chart": Markup(heat_map_svg(threat, matrix, names, prefix=f"{anchor}-{place}")),
        }
        for place, matrix in enumerate(reversed(threat["matrices"]))
    ]  # fmt: skip
    return {
        "raw": threat, "anchor": anchor, "attack": phrases.attack_text(threat.get("attack")), "matrices": matrices,
        "told": _told(threat, *best) if best is not None else "",
        "figure_names": sorted({name for matrix in matrices for cell in matrix["cells"] for name in cell["figures"]}),
        "findings": [_finding_view(finding, sheet, record) for finding in shown], "more": max(0, len(mine) - len(shown)),
    }  # fmt: skip


def _finding_view(finding: Record, sheet: PictureSheet, record: Record) -> dict[str, Any]:
    title = f"{finding['title']}, on {finding['target']} (crafted on {finding['source']})"
    gallery = {"gallery": next((model.get("gallery") for model in record["models"]), None)}
    return finding_view({**finding, "title": title}, sheet, {"subject": gallery})


def _markdown_threat(record: Record, threat: Record) -> Iterator[str]:
    yield f"## {plain(threat['title'])} ({code(threat['threat'])})"
    yield f"{plain(threat['question'])} Counted as success on the judging model: {plain(threat.get('criterion'))}."
    told = (threat["metrics"].get(threat["metric"]) or {}).get("title", threat["metric"])
    header = ["crafted on", *(plain(name) for name in _names(record))]
    for matrix in threat["matrices"]:
        yield f"ε = {eps_decimal(matrix['eps'])} ({eps_text(matrix['eps'])}), {plain(told)} / attempts that succeed:"
        rows = [[plain(source), *cells] for source, cells in _lines(record, threat, matrix, intervals=True)]
        yield table(header, rows)


def _lines(
    record: Record, threat: Record, matrix: Record, *, intervals: bool = False
) -> Iterator[tuple[str, list[str]]]:  # fmt: skip
    """A matrix line by line, the clean systems first; a cell has the headline metric and the successes."""
    names, text = _names(record), figure_text if intervals else value_text
    metric = str(threat["metric"])
    found = {(cell["source"] or CLEAN, cell["target"]): cell["figures"] for cell in (*threat["clean"], *matrix["cells"])}
    for source in (CLEAN, *names):
        if any((source, target) in found for target in names):
            here = [found.get((source, target), {}) for target in names]
            yield (
                source,
                [
                    text(each.get(metric)) + ("" if source == CLEAN else f" / {text(each.get('success'), digits=0)}")
                    for each in here
                ],
            )


def _names(record: Record) -> list[str]:
    return [str(model["name"]) for model in record["models"]]


def _notes(record: Record) -> list[str]:
    told = [f"{plain(row['scenario'])} was skipped: {plain(str(row['reason']).rstrip('.'))}." for row in record["skipped"]]
    return told + [plain(note) for note in record["notes"]]


def _cost_text(record: Record) -> str:
    cost = record["cost"]
    return (
        f"{figures.number(cost['attacks'], digits=0)} attacks on single pictures, {cost['forwards']:,} forwards, "
        f"{figures.number(cost['seconds'])} s in all."
    )


def _pairs(record: Record) -> int:
    sources = [model for model in record["models"] if model.get("gradients", True)]
    return len(sources) * len(record["models"])


def _attacked(record: Record) -> int:
    return max(
        (
            sum(int(cell["figures"]["success"][name]) for name in ("n", "undefined", "failed"))
            for threat in record["threats"]
            for matrix in threat["matrices"]
            for cell in matrix["cells"]
        ),
        default=0,
    )


def _provenance(record: Record) -> list[tuple[str, str]]:
    rows = provenance_rows(record)
    return rows + [(f"Fingerprint of {model['name']}", str(model["fingerprint"])) for model in record["models"]]


def _methods(record: Record) -> Sequence[str]:
    cells = [
        cell
        for threat in record["threats"]
        for cell in (*threat["clean"], *(cell for matrix in threat["matrices"] for cell in matrix["cells"]))
    ]
    return sorted({str(figure["method"]) for cell in cells for figure in cell["figures"].values()})
