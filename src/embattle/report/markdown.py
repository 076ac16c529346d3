"""The report in short, as Markdown for a pull request or a wiki."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from embattle.report import figures, phrases
from embattle.report.figures import Record
from embattle.report.provenance import interval_methods, provenance_rows
from embattle.report.robustness import robustness_view


def render_markdown(summary: Record) -> str:
    """The content of the page without pictures.

    Args:
        summary: the content of `summary.json`.

    Returns:
        Markdown text in which everything from outside is escaped; ends with a line break.
    """
    subject = summary.get("subject") or {}
    blocks = [
        f"# Embattle audit: {plain(subject.get('model', 'model'))} on {plain(subject.get('data', 'data'))}",
        f"**{phrases.headline(summary)}.** {plain(phrases.verdict(summary))}",
        plain(phrases.range_text(summary)),
        plain(phrases.state_text(summary)),
        _facts(summary),
        _threat_table(summary),
        _robustness(summary),
        *[_threat(threat) for threat in summary.get("threats", ())],
        _gates(summary),
        _clean(summary),
        _notes(summary),
        _provenance(summary),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def plain(value: object) -> str:
    """Text from outside on one line, with everything that Markdown or HTML would act on made harmless."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)


def code(value: object) -> str:
    """Text from outside as inline code, fenced by more backticks than it holds itself."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _with_counts(figure: Record | None, *, digits: int | None = None) -> str:
    left_out = figures.left_out_text(figure)
    return figures.figure_text(figure, digits=digits) + (f" ({left_out})" if left_out else "")


def _facts(summary: Record) -> str:
    subject = summary.get("subject") or {}
    recall = phrases.recall_at_1(summary)
    threats = summary.get("threats", ())
    told = [
        f"similarity {plain(subject.get('similarity', 'not recorded'))}",
        f"gallery {figures.number(subject.get('gallery'), digits=0)} items",
        f"{phrases.attacked_items(threats):,} {phrases.attacked_title(threats).lower()} per threat and ε",
        f"clean recall@1 {_with_counts(recall) if recall else 'needs labels'}",
    ]
    return "\n".join(f"- {line}" for line in told)


def _threat_table(summary: Record) -> str:
    rows = []
    for threat in summary.get("threats", ()):
        point = phrases.decisive_point(threat)
        reached = phrases.success(point) if point is not None else None
        at = f" at {figures.eps_text(point['eps'])}" if point is not None else ""
        rows.append([
            _grade(threat),
            plain(threat["title"]),
            phrases.half_text(threat),
            f"{_with_counts(reached, digits=0)}{at}",
            phrases.cost_text(threat),
        ])  # fmt: skip
    if not rows:
        return "No threat was measured."
    return table(["Grade", "Threat", "Succeeds half of the time at", "Success", "Cost per image"], rows)


def _grade(threat: Record) -> str:
    span = phrases.grade_span(threat)
    return phrases.grade(threat) + (f" ({span})" if span else "")


def _threat(threat: Record) -> str:
    criterion = plain(threat.get("criterion") or "no criterion")
    lines = [
        f"## {plain(threat['title'])} ({code(threat['threat'])}), grade {_grade(threat)}",
        f"{plain(threat.get('question', ''))} Counted as success: {criterion}.",
        "\n".join(f"- {plain(advice)}" for advice in threat.get("advice") or ()),
        f"Reproduce: {code(threat['reproduce'])}" if threat.get("reproduce") else "",
    ]
    return "\n\n".join(line for line in lines if line)


def _robustness(summary: Record) -> str:
    view = robustness_view(summary)
    if view is None:
        return ""
    blocks = ["## Robustness score", plain(view["meaning"])]
    blocks += [f"**{plain(text)}**" for text in (view["masked"], view["refused"]) if text]
    for point in view["points"]:
        header = ["Part", "Measured", "Score", "ERS", "Measured as published", "ERS-legacy"]
        names = ("measured", "formula", "score", "legacy_measured", "legacy_score")
        rows = [
            [f"{plain(row['part'])} ({code(row['threat'])})", *(plain(row[name]) for name in names)]
            for row in point["rows"]
        ]
        rows.append(["**mean**", "", "", f"**{point['scores']['ERS']}**", "", f"**{point['scores']['ERS-legacy']}**"])
        blocks += [plain(" ".join([f"ε = {point['eps']}.", *point["missing"]])), table(header, rows)]
    if view["masking"]:
        told = ("status", "check", "finding", "advice")
        rows = [[plain(check[name] or "nothing") for name in told] for check in view["masking"]]
        blocks.append(table(["Gradients", "Check", "Found", "What to do"], rows))
    return "\n\n".join(blocks)


def _gates(summary: Record) -> str:
    rows = [
        ["passed" if gate["passed"] else "**failed**", code(gate["expression"]), plain(gate["why"])]
        for gate in summary.get("gates") or ()
    ]
    return "## Gates\n\n" + table(["Result", "Condition", "Why"], rows) if rows else ""


def _clean(summary: Record) -> str:
    rows = [
        [plain(name), _with_counts(figure), str(figure["n"])]
        for name, figure in sorted((summary.get("clean") or {}).items())
    ]
    return "## Quality without an attack\n\n" + table(["Figure", "Value", "n"], rows) if rows else ""


def _notes(summary: Record) -> str:
    told = [
        f"{plain(row['scenario'])} was skipped: {plain(str(row['reason']).rstrip('.'))}."
        for row in summary.get("skipped") or ()
    ]
    told += [plain(note["text"] if isinstance(note, dict) else note) for note in summary.get("notes") or ()]
    return "## Not covered, and notes\n\n" + "\n".join(f"- {line}" for line in told) if told else ""


def _provenance(summary: Record) -> str:
    rows = provenance_rows(summary)
    if methods := interval_methods(summary):
        rows.append(("Intervals", "95 %, by: " + "; ".join(methods)))
    lines = [f"- {plain(name)}: {code(value) if name == 'Command' else plain(value)}" for name, value in rows]
    return "## Where these figures come from\n\n" + "\n".join(lines)
