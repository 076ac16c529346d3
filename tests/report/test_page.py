from __future__ import annotations

import copy
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser

import pytest

from embattle.report import render_html
from embattle.report.html import FINDINGS_SHOWN

_HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7*7 }} $x_1$"
_VOID = {"meta", "link", "img", "br", "hr", "input"}


class _Page(HTMLParser):
    """Elements, attributes and visible text of a page; unbalanced tags are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _strings_replaced(value, key=""):
    """The record with every free text replaced by hostile text; names that other records refer to stay."""
    kept = {"unit", "threat", "metric", "blob", "original", "adversarial", "difference", "schema", "grade"}
    if isinstance(value, dict):
        return {name: _strings_replaced(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_strings_replaced(inner, key) for inner in value]
    return _HOSTILE if isinstance(value, str) and key not in kept else value


def test_page_has_its_parts_in_order(summary, blob):
    text = re.sub(r"\s+", " ", _Page(render_html(summary, blob)).text)
    order = [
        "SmallNet on digits/test",
        "A perturbation of 7/255 is enough to push an item up in 53 % of the attempts.",
        "98.1 %",
        "Threats, weakest first",
        "How to read the grades",
        "From nowhere to the first page",
        "412 → 2",
        "Re-rank the first page with a second, different model.",
        "embattle audit --data digits --only ca+.w1 --seed 0",
        "Gates",
        "Quality without an attack",
        "recall under shift was skipped: the folder has no labels.",
        "one animated picture: its first frame was used",
        "Where these figures come from",
        "0123abc",
        "bootstrap over queries",
    ]
    places = [text.find(part, 0) for part in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


def test_strings_from_outside_are_escaped(summary, blob):
    parsed = _Page(render_html(_strings_replaced(summary), blob))
    assert parsed.tags["script"] == 0
    assert all(not name.startswith("on") for _, attributes in parsed.attributes for name in attributes)
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in parsed.attributes)
    assert _HOSTILE in parsed.text  # shown as text, not dropped


def test_hostile_metric_name_and_title_stay_text_in_the_chart(summary, blob):
    threat = summary["threats"][0]
    for point in threat["curve"]:
        point["figures"][_HOSTILE] = point["figures"].pop("rank")
    threat["metrics"] = {_HOSTILE: {"unit": "%", "higher_is_better": True, "title": _HOSTILE}}
    threat["metric"] = threat["threat"] = summary["findings"][0]["threat"] = _HOSTILE
    parsed = _Page(render_html(summary, blob))
    assert parsed.tags["script"] == 0
    assert all("onerror" not in attributes for _, attributes in parsed.attributes)


def test_no_script_no_request_and_a_strict_policy(summary, blob):
    parsed = _Page(render_html(summary, blob))
    policy = next(a["content"] for t, a in parsed.attributes if a.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    assert directives["style-src"] == "'unsafe-inline'"
    for forbidden in ("script", "iframe", "object", "embed", "form", "video", "audio", "base"):
        assert parsed.tags[forbidden] == 0
    for tag, attributes in parsed.attributes:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert "srcset" not in attributes
    page = render_html(summary, blob)
    assert set(re.findall(r"url\(([^)]{1,5})", page)) <= {f"#{start}" for start in re.findall(r"url\(#(.{1,4})", page)}
    assert "@import" not in page


def test_ids_are_unique_and_every_reference_has_its_target(summary, blob):
    page = render_html(summary, blob)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) > 50
    assert max(Counter(ids).values()) == 1
    references = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    references |= set(re.findall(r'aria-labelledby="([^"]+)"', page))
    assert references
    assert references <= set(ids)


def test_same_summary_gives_the_same_page(summary, blob):
    first = render_html(summary, blob)
    assert render_html(copy.deepcopy(summary), blob) == first
    for threat in summary["threats"]:
        threat["curve"].reverse()
    assert render_html(summary, blob) == first


def test_pictures_have_alternative_texts_and_tables_have_headers(summary, blob):
    parsed = _Page(render_html(summary, blob))
    pictures = [attributes for tag, attributes in parsed.attributes if tag == "img"]
    assert len(pictures) == 2 * 4
    assert all(attributes["alt"] for attributes in pictures)
    named = [a for t, a in parsed.attributes if t == "svg" and a.get("aria-hidden") != "true"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in named)
    headers = [attributes for tag, attributes in parsed.attributes if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in ("row", "col") for attributes in headers)


def test_attacked_item_is_framed_and_gaps_in_the_list_are_shown(summary, blob):
    page = render_html(summary, blob)
    framed = re.findall(r'<li class="framed">.*?</li>', page, flags=re.DOTALL)
    assert len(framed) == 4  # two findings, before and after
    assert ">412<" in framed[0]
    assert "0.12" in framed[0]
    assert ">2<" in framed[1]
    assert page.count('<li class="dots"') == 2  # rank 6 to 412, once per finding


def test_small_pictures_keep_their_pixels_and_grow_by_whole_factors(summary, blob):
    parsed = _Page(render_html(summary, blob))
    for tag, attributes in parsed.attributes:
        if tag == "img":
            assert attributes["class"] == "sharp"
            assert (int(attributes["width"]) % 28, int(attributes["height"]) % 28) == (0, 0)
            assert int(attributes["width"]) >= 112


def test_undefined_and_failed_samples_are_told(summary, blob):
    point = summary["threats"][1]["curve"][1]
    point["figures"]["success"] |= {"undefined": 0, "failed": 11}
    page = render_html(summary, blob)
    assert "11 failed" in page
    assert "2 undefined" in page
    assert "5 undefined" in page  # a clean figure
    point["figures"]["success"]["failed"] = 0
    assert "11 failed" not in render_html(summary, blob)


def test_threat_without_a_defined_success_is_not_given_a_good_grade(summary, blob):
    for point in summary["threats"][1]["curve"]:
        point["figures"]["success"] |= {"value": None, "ci": None, "n": 0, "undefined": 64}
    page = render_html(summary, blob)
    section = page[page.index('<section class="threat" id="threat-2"') :]
    assert 'aria-label="Not graded"' in section[:400]
    assert "not graded" in section


def test_unfinished_run_says_so(summary, blob):
    assert "nfinished" not in render_html(summary, blob)
    page = render_html({**summary, "complete": False, "units": {"done": 3, "planned": 12, "quarantined": 2}}, blob)
    assert "This run is unfinished: 3 of 12 units are done" in page
    assert "digits/test: Unfinished: 3 of 12 units, no overall grade yet</title>" in page
    verdict = page[page.index('<div class="verdict">') : page.index('<dl class="facts">')]
    assert 'aria-label="Not graded"' in verdict
    assert "Grade D" not in verdict
    assert '<p class="sentence">Unfinished: 3 of 12 units, no overall grade yet.</p>' in verdict
    assert '<p class="sentence">So far, a perturbation of 7/255 is enough' in verdict
    assert "2 units stopped with an error" in page


def test_a_side_is_explained_where_the_word_is_first_used(summary, blob):
    for state in ({}, {"complete": False, "units": {"done": 3, "planned": 12}}):
        sides = re.findall(r"[^.]*\bsides?\b[^.]*\.", _Page(render_html({**summary, **state}, blob)).text)
        assert "Each threat is one side of the system" in sides[0]


def test_page_of_a_run_without_threats_labels_gates_or_findings(summary, blob):
    bare = {**summary, "threats": [], "findings": [], "clean": {}, "skipped": [], "notes": []}
    del bare["gates"]
    text = _Page(render_html(bare, blob)).text
    assert "No threat was measured." in text
    assert "needs labels" in text
    assert "Gates" not in text


def test_many_tested_eps_keep_the_overview_small_and_the_full_table_whole(summary, blob):
    threat = summary["threats"][0]
    model = threat["curve"][2]
    threat["curve"] = [{**model, "eps": round(number / 100, 2)} for number in range(31)]
    page = render_html(summary, blob)
    overview = page[page.index('<table class="overview">') : page.index('<section class="legend"')]
    assert overview.count("Success at") == 6
    assert "24 more tested ε" in overview
    figures = page[page.index('<table class="figures">') :]
    assert figures[: figures.index("</table>")].count('<th scope="row">') == 31


def test_thousand_findings_render_in_five_seconds_and_stay_small(summary, blob):
    model = summary["findings"][0]
    summary["findings"] = [{**model, "sample": f"digits/test/{number:05d}"} for number in range(1000)]
    one = {**summary, "findings": summary["findings"][:1]}
    started = time.perf_counter()
    page = render_html(summary, blob)
    assert time.perf_counter() - started < 5
    assert page.count('<article class="finding">') == FINDINGS_SHOWN
    assert f"{1000 - FINDINGS_SHOWN} more findings" in page
    thumbnails = page.count("<image ")
    assert thumbnails == render_html(one, blob).count("<image ") == 8  # six results, the item clean and attacked


def test_a_grade_that_the_interval_does_not_settle_has_its_range_beside_it(summary, blob):
    assert "more than one grade" not in render_html(summary, blob)
    summary["threats"][0]["grade_range"] = ["B", "F"]
    page = render_html(summary, blob)
    verdict, rest = page[page.index('<div class="verdict">') :].split('<dl class="facts">', 1)
    assert "<small>B–F</small>" in verdict
    assert "With 66 attacked items the 95 % intervals allow more than one grade of ca+.w1" in verdict
    assert "overall grade" in verdict
    assert rest.count("B–F") == 2  # in the overview, and where the threat is described
    assert "A–A" not in page


def test_findings_at_the_grade_deciding_eps_come_first(summary, blob):
    model = summary["findings"][0]
    summary["findings"] = [
        {**model, "eps": eps, "sample": f"sample at {eps}"} for eps in (0.3, 0.01, 0.03, 0.1) for _ in range(2)
    ]
    shown = re.findall(r"sample at ([0-9.]+) ·", render_html(summary, blob))
    assert shown == ["0.03", "0.03", "0.01", "0.01", "0.1", "0.1"]


@pytest.mark.parametrize("damage", ["missing", "text", "cut off"])
def test_damaged_picture_is_named_and_costs_only_itself(summary, blob, damage):
    def read(unit: str, name: str) -> bytes:
        if name != "item0.png":
            return blob(unit, name)
        if damage == "missing":
            raise KeyError(name)
        return b"<svg onload=alert(1)>" if damage == "text" else blob(unit, name)[:-6]

    page = render_html(summary, read)
    assert "picture not available" in page
    assert "Picture left out: item0.png of unit uuuu" in page
    assert page.count("Picture left out") == 1
    assert "onload" not in page
    assert page.count("<img ") == 2 * 3


def test_text_in_the_page_has_enough_contrast():
    """WCAG AA for every text colour on both grounds, light and dark, and for white letters on the grade badges."""
    from pathlib import Path

    import embattle.report.html as module

    css = (Path(module.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    schemes = [dict(re.findall(r"--(\w+):(#[0-9a-f]+)", block)) for block in re.findall(r":root\{([^}]*)\}", css)]
    assert len(schemes) == 3
    for scheme in schemes:
        for ground in ("page", "panel"):
            for ink in ("text", "muted", "accent", "attack"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground, scheme)
    badges = re.findall(r"\.g[ABCDFN]\{background:(#[0-9a-f]+)\}", css)
    assert len(badges) == 6
    assert all(contrast("#fff", badge) >= 4.5 for badge in badges)


def test_charts_are_well_formed_and_take_their_colours_from_the_page(summary):
    from embattle.report.charts import curve_svg

    svg = curve_svg(summary["threats"][0], prefix="threat-1")
    ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert "<metadata" not in svg
    assert "var(--accent)" in svg
    assert "var(--attack)" in svg
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", svg)) == set()  # no colour of its own
    assert re.search(r"<text[^>]*>Mean rank of the attacked item, % \(higher is better for you\)", svg)


def test_importing_and_rendering_needs_no_torch_and_import_is_light(tmp_path):
    code = """
import sys
import embattle.report
heavy = {"torch", "matplotlib", "jinja2", "rich", "PIL"} & set(sys.modules)
assert not heavy, heavy
sys.modules["torch"] = None  # any import of torch now raises
from embattle.report import render_html, render_markdown, terminal_table
empty = {"threats": [], "findings": [], "clean": {}, "subject": {}, "units": {}, "environment": {}}
assert "<!doctype html>" in render_html(empty, lambda unit, name: b"")
render_markdown(empty), terminal_table(empty)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
