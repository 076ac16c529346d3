"""One self-contained HTML page from a summary: no script, no request, everything from outside escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embattle.report import figures, phrases
from embattle.report.charts import curve_svg
from embattle.report.figures import Record
from embattle.report.pictures import Picture, PictureSheet
from embattle.report.provenance import interval_methods, provenance_rows
from embattle.report.robustness import robustness_view

if TYPE_CHECKING:
    from jinja2 import Template

FINDINGS_SHOWN = 6
"""Findings shown per threat; the rest stay in the run folder."""
_COLUMNS_SHOWN = 6
_SUBJECT = ("model", "data", "similarity", "gallery", "parameters", "dimension", "classes")
_OPTIONAL: Record = {"created": "", "embattle": "", "gates": (), "skipped": (), "notes": (), "complete": True}
_TRIPTYCH, _THUMBNAIL = 128, 64


def write_report(run: Path) -> Path:
    """Write `report.html` of a run folder from its `summary.json` and pictures.

    Args:
        run: a run folder with a `summary.json`.

    Returns:
        The file written; it appears complete or not at all.

    Raises:
        InputError: the folder has no usable summary, or cannot be written.
        RunIncomplete: the disk is full.
    """
    from embattle.records.atomic import write_atomic
    from embattle.records.store import LocalStore
    from embattle.records.summary import load_summary

    summary = load_summary(run / "summary.json")
    page = render_html(summary, LocalStore(run).blob)
    target = run / "report.html"
    # File names may hold bytes that are no text; "replace" keeps one such id from costing the whole page.
    write_atomic(target, page.encode("utf-8", "replace"))
    return target


def render_html(summary: Record, blob: Callable[[str, str], bytes]) -> str:
    """The page of a run.

    Args:
        summary: the content of `summary.json`.
        blob: gives the bytes of a picture from its unit id and name; one that is missing or no PNG is left out and
            named on the page.

    Returns:
        HTML with inline styles and pictures; the same summary and pictures always give the same text.
    """
    sheet = PictureSheet(blob)
    threats = [_threat_view(summary, threat, number, sheet) for number, threat in enumerate(summary.get("threats", ()))]
    columns = _columns(summary)
    return template("report.html.j2").render(
        summary={**_OPTIONAL, **summary},
        subject=dict.fromkeys(_SUBJECT) | dict(summary.get("subject") or {}),
        threats=threats,
        columns=columns,
        columns_left_out=len(_all_eps(summary)) - len(columns),
        overall=phrases.overall_grade(summary),
        overall_span=phrases.overall_span(summary),
        headline=phrases.headline(summary),
        unsettled=phrases.range_text(summary),
        verdict=phrases.verdict(summary),
        criterion=phrases.verdict_criterion(summary),
        weak=sum(threat["raw"].get("half_eps") is not None for threat in threats),
        graded=sum(threat["grade"] != phrases.UNGRADED for threat in threats),
        state=phrases.state_text(summary),
        recall=phrases.recall_at_1(summary),
        attacked=phrases.attacked_items(summary.get("threats", ())),
        attacked_title=phrases.attacked_title(summary.get("threats", ())),
        clean=sorted((summary.get("clean") or {}).items()),
        grades=phrases.grade_meanings(),
        robustness=robustness_view(summary),
        thumbnails=list(sheet.thumbnails.values()),
        problems=sheet.problems,
        provenance=provenance_rows(summary),
        methods=interval_methods(summary),
    )


def template(name: str) -> Template:
    """A page's template, with the filters for figures and autoescaping."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        eps=figures.eps_text,
        decimal=figures.eps_decimal,
        number=figures.number,
        date=figures.date_text,
        short=figures.short_name,
        value=figures.value_text,
        interval=figures.interval_text,
        left_out=figures.left_out_text,
    )
    return environment.get_template(name)


def _threat_view(summary: Record, threat: Record, number: int, sheet: PictureSheet) -> dict[str, Any]:
    from markupsafe import Markup

    found = _ordered_findings(summary, threat)
    anchor = f"threat-{number + 1}"
    curve = sorted(threat.get("curve", ()), key=lambda point: float(point["eps"]))
    point = phrases.decisive_point(threat)
    return {
        "raw": threat,
        "anchor": anchor,
        "grade": phrases.grade(threat),
        "span": phrases.grade_span(threat),
        "half": phrases.half_parts(threat),
        "cost": phrases.cost_text(threat),
        "access": phrases.ACCESS.get(str(threat.get("access")), str(threat.get("access") or "not recorded")),
        "attack": phrases.attack_text(threat.get("attack")),
        "chart": Markup(curve_svg(threat, prefix=anchor)) if curve else "",
        "curve": curve,
        "figure_names": sorted({name for point in curve for name in point["figures"]}),
        "success": [_success_cell(threat, eps) for eps in _columns(summary)],
        "left_out": figures.left_out_text(phrases.success(point)) if point is not None else "",
        "findings": [finding_view(finding, sheet, summary) for finding in found[:FINDINGS_SHOWN]],
        "more": max(0, len(found) - FINDINGS_SHOWN),
    }


def _ordered_findings(summary: Record, threat: Record) -> list[Record]:
    """A threat's findings, those at the smallest ε that works first: they show what the grade is about."""
    half = threat.get("half_eps")

    def order(finding: Record) -> tuple[bool, float]:
        eps = float(finding["eps"])
        return (half is not None and not math.isclose(eps, half), eps)

    mine = [finding for finding in summary.get("findings", ()) if finding["threat"] == threat["threat"]]
    return sorted(mine, key=order)


def finding_view(finding: Record, sheet: PictureSheet, summary: Record) -> dict[str, Any]:
    """A finding with its pictures, as the macro `finding` shows it."""
    unit = str(finding["unit"])
    names = (("Original", "original"), ("Adversarial", "adversarial"), ("Difference ×10", "difference"))
    anchor = finding.get("anchor")
    pictures = [(caption, _sized(sheet.get(unit, finding.get(key)), _TRIPTYCH)) for caption, key in names]
    if anchor:
        pictures.append((str(anchor["label"]).capitalize(), _sized(sheet.get(unit, anchor["blob"]), _TRIPTYCH)))
    return {
        "raw": finding,
        "pictures": pictures,
        "gallery": (summary.get("subject") or {}).get("gallery"),
        "lists": [_list_view(unit, ranked, sheet) for ranked in finding.get("lists", ())],
        "rose": (finding.get("rank_after") or 0) < (finding.get("rank_before") or 0),
    }


def _list_view(unit: str, ranked: Record, sheet: PictureSheet) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    last: int | None = None
    for item in ranked["items"]:
        rank = item.get("rank")
        gap = last is not None and rank is not None and rank > last + 1
        items.append({"raw": item, "gap": gap, "picture": _sized(sheet.thumbnail(unit, item.get("blob")), _THUMBNAIL)})
        last = rank
    return {"title": ranked["title"], "items": items}


def _sized(picture: Picture | None, target: int) -> dict[str, Any] | None:
    if picture is None:
        return None
    width, height = picture.shown(target)
    return {"picture": picture, "width": width, "height": height}


def _success_cell(threat: Mapping[str, Any], eps: float) -> dict[str, Any] | None:
    """Success at one ε of the overview, with the strength of its tint in per cent."""
    for point in phrases.points(threat):
        if math.isclose(point["eps"], eps) and (figure := point["figures"].get("success")) is not None:
            value = figure.get("value")
            return {"figure": figure, "tint": 0 if value is None else round(float(value) * 32)}
    return None


def _all_eps(summary: Record) -> list[float]:
    return sorted({float(point["eps"]) for threat in summary.get("threats", ()) for point in phrases.points(threat)})


def _columns(summary: Record) -> Sequence[float]:
    """The ε shown as columns of the overview: all, or a spread of them that has both ends."""
    tested = _all_eps(summary)
    if len(tested) <= _COLUMNS_SHOWN:
        return tested
    places = [round(index * (len(tested) - 1) / (_COLUMNS_SHOWN - 1)) for index in range(_COLUMNS_SHOWN)]
    return [tested[place] for place in places]
