from __future__ import annotations

import importlib.util
import io
import itertools
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from embattle.errors import InputError
from embattle.records import grades
from embattle.records.summary import build_summary, write_json_atomic
from embattle.report import figures, phrases, render_markdown, terminal_table, write_report
from embattle.report.charts import spread
from embattle.report.figures import eps_text, number


def _example_run(folder: Path, **settings: int) -> Path:
    path = Path(__file__).parents[1] / "records" / "example_run.py"
    spec = importlib.util.spec_from_file_location("report_example_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = module.write_example_run(folder, **settings)
    write_json_atomic(run / "summary.json", build_summary(run))
    return run


def _printed(table, width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(table)
    return stream.getvalue()


def test_report_of_a_run_folder_is_one_file_and_the_same_when_written_again(tmp_path):
    run = _example_run(tmp_path / "run")
    before = {path for path in run.rglob("*")}
    page = write_report(run)
    assert page == run / "report.html"
    first = page.read_bytes()
    assert write_report(run).read_bytes() == first
    assert {path for path in run.rglob("*")} == before | {page}
    assert first.count(b"<article") == 3
    assert b"<script>alert" not in first
    assert b"Picture left out" not in first


def test_report_tells_of_a_picture_that_was_changed_after_the_run(tmp_path):
    run = _example_run(tmp_path / "run")
    picture = next(iter(run.glob("units/*/*-original.png")))
    picture.write_bytes(picture.read_bytes() + b" ")
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count("Picture left out") == 1
    assert picture.name in page


def test_report_of_no_run_is_an_input_error_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"summary\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_file_name_that_is_no_text_does_not_cost_the_page(tmp_path):
    run = _example_run(tmp_path / "run")
    summary = build_summary(run)
    summary["findings"][0]["sample"] = "caf\udce9.jpg"
    write_json_atomic(run / "summary.json", summary)
    assert "caf?.jpg" in write_report(run).read_text(encoding="utf-8")


def test_legend_tells_the_limits_of_the_grades():
    meanings = phrases.grade_meanings()
    assert [letter for letter, _ in meanings] == list(grades.GRADES)
    for letter, meaning in meanings[:-1]:
        limit = float(re.search(r"ε ([0-9.]+)", meaning)[1])
        assert grades.grade(limit) == letter
        assert grades.grade(math.nextafter(limit, 0)) != letter


@pytest.mark.parametrize(
    ("half", "share", "says"),
    [
        (0.03, 0.53, "A perturbation of 7/255 is enough to push an item up in 53 % of the attempts."),
        (8 / 255, 0.5, "A perturbation of 8/255 is enough to push an item up in 50 % of the attempts."),
        (
            None,
            0.1,
            "No tested threat succeeds in half of its attempts, up to the largest tested perturbation of 76/255.",
        ),
    ],
)
def test_verdict_is_about_the_weakest_threat(summary, half, share, says):
    threat = summary["threats"][0]
    threat["half_eps"] = half
    threat["curve"][2]["eps"] = half or 0.03
    threat["curve"][2]["figures"]["success"]["value"] = share
    assert phrases.verdict(summary) == says


def test_overall_grade_is_the_worst_and_skips_what_nobody_could_grade(summary):
    assert phrases.overall_grade(summary) == "D"
    for point in summary["threats"][0]["curve"]:
        point["figures"]["success"]["value"] = None
    assert phrases.overall_grade(summary) == "A"
    assert phrases.overall_grade({**summary, "threats": summary["threats"][:1]}) == phrases.UNGRADED
    assert "No threat could be graded" in phrases.verdict({**summary, "threats": summary["threats"][:1]})


def test_an_unfinished_run_has_no_overall_grade(summary):
    summary |= {"complete": False, "units": {"done": 3, "planned": 12}}
    assert phrases.overall_grade(summary) == phrases.UNGRADED
    told = "Unfinished: 3 of 12 units, no overall grade yet"
    assert f"**{told}.** So far, a perturbation of 7/255" in render_markdown(summary)
    text = " ".join(_printed(terminal_table(summary)).split())
    assert f"{told}. So far, a perturbation of 7/255" in text
    for everything in (render_markdown(summary), text):
        assert "Overall grade" not in everything


def test_the_range_of_grades_stands_beside_the_letter(summary):
    for text in (render_markdown(summary), _printed(terminal_table(summary))):
        assert "more than one grade" not in text
    summary["threats"][0]["grade_range"] = ["B", "F"]
    text = render_markdown(summary)
    assert "**Overall grade D (B–F).** A perturbation" in text
    assert "| D (B–F) | Push an item up |" in text
    assert "(`ca+.w1`), grade D (B–F)" in text
    table = terminal_table(summary)
    printed = _printed(table, width=80)
    assert max(map(len, printed.splitlines())) <= 80
    assert "Overall grade D (B–F)." in printed
    row = next(number for number, line in enumerate(printed.splitlines()) if "Push an item up" in line)
    assert "B–F" in printed.splitlines()[row + 1]
    for everything in (text, " ".join(printed.split())):
        assert "With 66 attacked items the 95 % intervals allow more than one grade of ca+.w1" in everything


def test_the_overall_range_is_of_the_weakest_side_at_either_end(summary):
    first, *others = summary["threats"]
    assert {phrases.grade(threat) for threat in others} <= {"A", phrases.UNGRADED}
    first["grade_range"] = ["A", "D"]
    others[0]["grade_range"] = ["A", "F"] if phrases.grade(others[0]) == "A" else None
    assert phrases.overall_span(summary) == "A–F"


@pytest.mark.parametrize("level", range(1, 256))
def test_whole_levels_are_written_as_such(level):
    assert eps_text(level / 255) == f"{level}/255"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.000123, "0.000123"), (-0.5, "-0.5"), (99.96, "100"), (1e6, "1,000,000"), (30.0, "30")]
)
def test_numbers_have_three_digits_at_most_where_they_are_small(value, text):
    assert number(value) == text


def test_ticks_of_dense_curves_do_not_touch():
    ticks = spread([step / 100 for step in range(31)], 7)
    assert ticks[0] == 0.0
    assert ticks[-1] == 0.3
    gaps = [math.sqrt(right) - math.sqrt(left) for left, right in itertools.pairwise(ticks)]
    assert len(ticks) <= 8
    assert min(gaps) > 0.06


def test_markdown_has_the_content_in_short(summary):
    text = render_markdown(summary)
    assert text.startswith("# Embattle audit: SmallNet on digits/test\n")
    assert "**Overall grade D.** A perturbation of 7/255" in text
    assert (
        "| D | Push an item up | 7/255 (ε = 0.03) | 53 % [43, 63] (2 undefined) at 7/255 | 31 forwards, 0.042 s |" in text
    )
    assert "`embattle audit --data digits --only ca+.w1 --seed 0`" in text
    assert "| **failed** | `ca+.w1@0.03 > 40` |" in text
    assert "- recall under shift was skipped: the folder has no labels." in text


def test_markdown_escapes_what_comes_from_outside(summary):
    summary["threats"][0]["title"] = "a|b <script>alert(1)</script> [x](javascript:1) `c`\n# heading"
    summary["threats"][0]["reproduce"] = "echo ``` | <b>"
    text = render_markdown(summary)
    row = next(line for line in text.splitlines() if line.startswith("| D |"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    assert "<script>" not in text
    assert "\\[x\\](javascript:1)" in text
    assert "\n# heading" not in text
    assert "```` echo ``` \\| <b> ````" in text


def test_terminal_table_says_grade_threat_eps_and_cost(summary):
    text = _printed(terminal_table(summary))
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if "Push an item up" in line)
    row = "\n".join(lines[first : first + 2])
    for part in ("D", "ca+.w1", "0.03", "7/255", "53 % [43, 63]", "2 undefined", "50.0 % →", "12.0 %", "31 fwd", "0.04 s"):
        assert part in row
    assert max(map(len, _printed(terminal_table(summary), width=80).splitlines())) <= 80
    assert "none up to" in text
    assert "Overall grade D." in text


@pytest.mark.parametrize("levels", [1, 2, 8, 16, 33, 76.5, 254])
@pytest.mark.parametrize("reached", [True, False])
def test_no_digit_is_cut_off_in_80_columns(summary, levels, reached):
    eps = levels / 255
    for threat in summary["threats"]:
        threat["half_eps"] = eps if reached else None
        for point in threat["curve"][1:]:
            point["eps"] = eps
            point["figures"]["success"] |= {"value": 1.0, "ci": [0.962, 1.0]}
            point["cost"] = {"forwards": 12_345.0, "backwards": 12_344.0, "seconds": 1234.56}
    text = _printed(terminal_table(summary), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for part in (figures.eps_decimal(eps), f"{math.floor(levels)}/255", "12,345 fwd", "1,234.56 s", "100 % [96, 100]"):
        assert part in text
    assert ("none up to" in text) is not reached


def test_terminal_table_passes_no_markup_and_no_control_characters(summary):
    summary["threats"][0]["title"] = "[red]x[/red] \x1b[2J [link=file:///etc]y[/link] [/]"
    summary["subject"]["model"] = "\x1b]0;title\x07[bold]m"
    text = _printed(terminal_table(summary), width=300)
    assert "[red]x[/red]" in text
    assert "[bold]m" in text
    assert "\x1b" not in text
    assert "\x07" not in text
