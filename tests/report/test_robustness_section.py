"""The robustness score on the page, in Markdown and in the terminal: both readings, their parts, and warnings."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from embattle.records import Figure, build_robustness
from embattle.records.robustness import PARTS
from embattle.report import render_html, render_markdown, terminal_table
from embattle.report.provenance import interval_methods

VALUES = (14.9, 36.1, 20.9, 48.6, 0.966, 0.288, 62.0, 28.0, 20.8, 0.0)
CHECKS = [
    {"check": "more ε is never weaker", "status": "ok", "figures": {}, "finding": "gain 0.2", "advice": ""},
    {"check": "the loss is not flat", "status": "ok", "figures": {}, "finding": "100 %", "advice": ""},
]


def figure(value: float) -> dict[str, Any]:
    return Figure(
        value=value, unit="", n=50, undefined=0, failed=0, ci=(value, value), method="m", higher_is_better=True
    ).to_json()  # fmt: skip


def told(
    subject: dict[str, Any] | None = None, *, without: str = "", eps: tuple[float, ...] = (77 / 255,)
) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for part, value in zip(PARTS, VALUES, strict=True):
        found.setdefault(part.threat, {})[part.figure] = figure(value)
        if part.legacy:
            found[part.legacy] = {"recall@1": figure(value + 20)}
    threats = [
        {"threat": name, "curve": [{"eps": each, "figures": figures} for each in eps]}
        for name, figures in found.items()
        if name != without
    ]
    return {**build_robustness(subject or {"similarity": "cosine"}, threats), "masking": CHECKS}


def text(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def printed(summary: dict[str, Any], width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(terminal_table(summary))
    return stream.getvalue()


def test_both_scores_and_ten_parts_are_everywhere(summary, blob) -> None:
    summary["robustness"] = told()
    page, markdown, terminal = text(render_html(summary, blob)), render_markdown(summary), printed(summary)
    for shown in (page, markdown, terminal):
        for part in PARTS:
            assert part.name in shown
        assert "38.7 [" in shown, "the published score of this row"
        assert "42.7 [" in shown, "two parts are 20 higher as published"
        assert "mean of ten attacks" in " ".join(shown.split()), "one sentence says what the score is"
        assert "0.302 (77/255)" in shown
    assert "48 [" in page, "LTM as it was published"
    assert "50 · (2 − ES:D)" in page
    for row in (page, markdown):
        assert "more ε is never weaker" in row
    assert "2 of 2 gradient checks ok" in terminal
    assert max(map(len, terminal.splitlines())) <= 80
    assert any("ten scores' ends" in method for method in interval_methods(summary))


def test_a_run_without_a_suite_has_no_such_section(summary, blob) -> None:
    for shown in (render_html(summary, blob), render_markdown(summary), printed(summary)):
        assert "obustness score" not in shown
        assert "gradient checks" not in shown


def test_every_tested_eps_has_its_table(summary, blob) -> None:
    summary["robustness"] = told(eps=(0.1, 0.2))
    page = render_html(summary, blob)
    section = page[page.index('id="robustness"') : page.index('<section class="threat"')]
    assert section.count("Mean of the ten") == 2
    assert printed(summary).count("Robustness score at ε") == 2


def test_masked_gradients_are_said_before_any_number(summary, blob) -> None:
    failed = {"check": "black box never beats white box", "status": "FAIL", "figures": {}, "finding": "-0.3",
              "advice": "smooth it"}  # fmt: skip
    summary["robustness"] = {**told(), "masking": [*CHECKS, failed]}
    page, markdown, terminal = text(render_html(summary, blob)), render_markdown(summary), printed(summary)
    for shown in (page, markdown, " ".join(terminal.split())):
        assert "gradients of this model look masked (black box never beats white box: FAIL)" in shown
        assert "smooth it" in shown
    assert page.index("look masked") < page.index("38.7 [")
    assert "2 of 3 gradient checks ok, 1 FAIL" in terminal


@pytest.mark.parametrize("without", ["ltm", "gtm-legacy"])
def test_a_missing_part_is_named(summary, blob, without: str) -> None:
    summary["robustness"] = told(without=without)
    name, part = ("ERS", "LTM") if without == "ltm" else ("ERS-legacy", "GTM")
    for shown in (text(render_html(summary, blob)), render_markdown(summary), " ".join(printed(summary).split())):
        assert f"{name} has no value: {part} was not measured." in shown


def test_a_model_off_the_sphere_is_told_why(summary, blob) -> None:
    summary["robustness"] = told({"similarity": "euclidean", "lengths": [3.0, 9.0]})
    for shown in (text(render_html(summary, blob)), render_markdown(summary), " ".join(printed(summary).split())):
        assert "unit sphere" in shown
        assert "of length 3 to 9" in shown
        assert "38.7" not in shown


def test_what_comes_from_outside_is_escaped(summary, blob) -> None:
    hostile = {**CHECKS[0], "finding": "<script>alert(1)</script>|*x*"}
    summary["robustness"] = {**told(), "masking": [hostile]}
    assert "<script>alert" not in render_html(summary, blob)
    assert "<script>alert" not in render_markdown(summary)
