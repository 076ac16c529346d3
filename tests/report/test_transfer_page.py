"""The page of a transfer: a heat map for every threat, whatever the models are called, and nothing that is not escaped."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from embattle.report import heat_map, render_transfer, render_transfer_markdown, transfer_tables
from embattle.report.heat_map import heat_map_svg, strongest_transfer

EPS = (0.03, 0.3)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7*7 }} $x_1$ | `"
_VOID = {"meta", "link", "img", "br", "hr", "input"}


def figure(value: float | None, unit: str, **counts: int) -> dict[str, Any]:
    n = 0 if value is None else 32
    return {
        "value": value, "unit": unit, "n": n, "undefined": 32 - n, "failed": 0, "higher_is_better": unit == "%",
        "ci": None if value is None else [value * 0.9, value * 1.1], "method": "Wilson" if unit == "share" else "bootstrap",
        **counts,
    }  # fmt: skip


def cell(source: str | None, target: str, rank: float | None, share: float | None) -> dict[str, Any]:
    return {
        "source": source, "target": target, "white_box": source == target,
        "figures": {"rank": figure(rank, "%"), "success": figure(share, "share")},
        "cost": {"forwards": 31.0, "backwards": 30.0, "seconds": 0.2},
    }  # fmt: skip


def threat(name: str, title: str, models: tuple[str, ...], *, raising: bool) -> dict[str, Any]:
    clean, best, other = (50.0, 2.5, 31.25) if raising else (2.25, 93.5, 9.75)
    matrices = [
        {
            "eps": eps,
            "cells": [
                cell(a, b, best if a == b else other + 10 * i, (0.96 if a == b else 0.1 + 0.2 * i) * eps / 0.3)
                for i, a in enumerate(models) for b in models
            ],
        }
        for eps in EPS
    ]  # fmt: skip
    return {
        "threat": name, "title": title, "question": "Can it?", "direction": "raise" if raising else "lower",
        "metric": "rank", "metrics": {"rank": {"unit": "%", "higher_is_better": raising, "title": "mean rank of the item"}},
        "criterion": "the item enters the first 10", "access": "gradient", "attack": {"name": "apgd", "steps": 30},
        "reproduce": f"embattle transfer --only {name}", "clean": [cell(None, b, clean, None) for b in models],
        "matrices": matrices,
    }  # fmt: skip


@pytest.fixture
def record() -> dict[str, Any]:
    models = ("plain", "hardened", "resnet")
    return {
        "schema": "embattle.transfer/1", "name": "transfer", "created": "2026-01-02T03:04:05+00:00", "embattle": "0.1.0",
        "command": "embattle transfer --data digits", "commit": "0123abc", "config_hash": "c" * 64, "seed": 3,
        "environment": {"created": "2026-01-02T03:04:05+00:00", "python": "3.11.9", "torch": "2.13.0", "threads": 2},
        "models": [
            {
                "name": name, "model": "C2F1", "fingerprint": f"{i}" * 64, "similarity": "cosine", "parameters": 1234 + i,
                "dimension": 64, "data": "digits/test", "gallery": 1797, "size": [28, 28] if i else None,
                "gradients": True, "clean": {"recall@1": figure(0.98, "share")},
            }
            for i, name in enumerate(models)
        ],
        "threats": [
            threat("ca+.w1", "Push an item up", models, raising=True),
            threat("ca-.w1", "Hide an item", models, raising=False),
        ],
        "findings": [], "skipped": [{"scenario": "class", "reason": "no labels"}], "notes": ["All figures are of 8 bits."],
        "cost": {"attacks": 640, "forwards": 19840, "backwards": 19200, "seconds": 61.5},
        "units": {"planned": 9, "done": 9, "quarantined": 0}, "complete": True,
    }  # fmt: skip


def no_blob(unit: str, name: str) -> bytes:
    raise AssertionError("there are no pictures")


class Page(HTMLParser):
    """Balanced tags, their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def with_names(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: with_names(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_names(inner, old, new) for inner in value]
    return new if value == old else value


def test_the_page_has_its_parts(record) -> None:
    page = render_transfer(record, no_blob)
    seen = Page(page)
    for said in (
        "Strongest transfer: to push an item up on plain, pictures crafted on resnet within ε = 0.3 succeed in 50 % "
        "[45, 55] of the attempts; crafted on that model itself, 96 %",
        "3 models", "9 ordered pairs", "1,797 items", "640", "19,840 forwards", "class was skipped: no labels",
        "All figures are of 8 bits.", "Fingerprint of hardened", "embattle transfer --data digits", "28×28", "any size",
    ):  # fmt: skip
        assert said in " ".join(seen.text.split()), said
    assert page.count('<svg class="chart"') == 2 * len(EPS)
    assert render_transfer(record, no_blob) == page
    used = [attributes["id"] for _, attributes in seen.attributes if "id" in attributes]
    assert len(used) == len(set(used))
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="https?:', page)


def test_every_cell_is_printed_and_tinted_by_how_far_the_attack_got(record) -> None:
    for described in record["threats"]:
        matrix = described["matrices"][-1]
        svg = heat_map_svg(described, matrix, ["plain", "hardened", "resnet"], prefix="x")
        drawn = ElementTree.fromstring(svg)
        texts = [element.text for element in drawn.iter("text")]
        for each in (*described["clean"], *matrix["cells"]):
            assert f"{each['figures']['rank']['value']:.1f}" in texts
            if each["figures"]["success"]["value"] is not None:
                assert f"{100 * each['figures']['success']['value']:.0f}" in texts
        assert {"crafted on", "judged on", "no attack", "plain", "hardened", "resnet"} <= set(texts)
        assert "#0102" not in svg
        assert {"var(--attack)", "var(--text)", "var(--line)", "var(--accent)"} <= set(re.findall(r"var\(--\w+\)", svg))
        # 9 cells of the metric, then 9 of the success; the clean row has no tint.
        tints = [float(tint) for tint in re.findall(r"fill: var\(--attack\); opacity: ([0-9.]+)", svg)]
        clean, full = (50.0, 47.5 / 50) if described["direction"] == "raise" else (2.25, 91.25 / 97.75)
        assert max(tints) == pytest.approx(heat_map.STRONGEST_TINT * 0.96, abs=1e-3)
        assert any(tint == pytest.approx(heat_map.STRONGEST_TINT * full, abs=1e-3) for tint in tints)
        other = next(each for each in matrix["cells"] if not each["white_box"])["figures"]["rank"]["value"]
        way = (clean - other) / clean if described["direction"] == "raise" else (other - clean) / (100 - clean)
        assert any(tint == pytest.approx(heat_map.STRONGEST_TINT * way, abs=1e-3) for tint in tints)


def test_what_moves_in_the_owners_favour_has_no_tint(record) -> None:
    described = record["threats"][0]
    matrix = {"eps": 0.3, "cells": [cell("a", "b", 61.0, 0.0), cell("b", "a", None, None)]}
    described = {**described, "clean": [cell(None, "a", 50.0, None), cell(None, "b", 50.0, None)]}
    svg = heat_map_svg(described, matrix, ["a", "b"], prefix="x")
    assert "var(--attack)" not in svg
    assert "var(--line)" in svg
    assert "–" in svg


def test_text_on_the_strongest_tint_can_be_read_in_both_schemes() -> None:
    css = (Path(heat_map.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})", block)) for block in re.findall(r":root\{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) >= 2

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def rgb(text: str) -> list[float]:
        digits = text[1:] if len(text) == 7 else "".join(c * 2 for c in text[1:])
        return [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]

    for scheme in schemes:
        tint = heat_map.STRONGEST_TINT
        mixed = [tint * a + (1 - tint) * p for a, p in zip(rgb(scheme["attack"]), rgb(scheme["page"]), strict=True)]
        light, dark = sorted((luminance(mixed), luminance(rgb(scheme["text"]))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_names_from_outside_are_escaped(record) -> None:
    hostile = with_names(record, "hardened", HOSTILE)
    hostile["notes"] = [HOSTILE]
    page = render_transfer(hostile, no_blob)
    seen = Page(page)
    assert "script" not in {tag for tag, _ in seen.attributes}
    assert not [attributes for _, attributes in seen.attributes if any(name.startswith("on") for name in attributes)]
    text = render_transfer_markdown(hostile)
    assert "<script" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_the_strongest_transfer_is_off_the_diagonal(record) -> None:
    matrix, best = strongest_transfer(record["threats"][0])
    assert (matrix["eps"], best["source"]) == (0.3, "resnet")
    assert not best["white_box"]
    alone = {**record["threats"][0], "matrices": [{"eps": 0.3, "cells": [cell("plain", "plain", 2.0, 1.0)]}]}
    assert strongest_transfer(alone) is None
    page = render_transfer({**record, "threats": [alone]}, no_blob)
    assert "No transfer could be measured" in page


def test_an_unfinished_transfer_says_so(record) -> None:
    record["complete"] = False
    record["units"]["done"] = 4
    assert "unfinished: 4 of 9 units" in render_transfer(record, no_blob)
    assert "unfinished: 4 of 9 units" in render_transfer_markdown(record)
    empty = {**record, "threats": [], "models": []}
    assert "No threat was measured" in render_transfer(empty, no_blob)
    assert "No transfer could be measured" in render_transfer_markdown(empty)


def test_a_threat_with_only_its_clean_figures_renders(record) -> None:
    record["threats"][0]["matrices"] = []
    page = render_transfer(record, no_blob)
    assert page.count('<svg class="chart"') == len(EPS)


def test_markdown_and_terminal_hold_the_matrices(record) -> None:
    text = render_transfer_markdown(record)
    assert "| plain | 2.5 % [2.2, 2.8] / 96 % [86, 106] | 31.2 % [28.1, 34.4] / 10 % [9, 11] |" in text
    assert "| no attack | 50.0 % [45.0, 55.0] |" in text
    assert "640 attacks on single pictures, 19,840 forwards, 61.5 s in all." in text
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(transfer_tables(record))
    shown = console.export_text()
    assert "ca+.w1 at ε 0.3" in shown
    assert "31.2 % / 10 %" in shown
    words = " ".join(shown.split())
    assert "ca+.w1 at ε 0.3: rank (higher is better) / attempts that succeed" in words
    assert "ca-.w1 at ε 0.3: rank (lower is better) / attempts that succeed" in words
    assert "The fewer attempts succeed, the better for you. Matrices of smaller ε are in the report. Strongest" in words
    assert max(map(len, shown.splitlines())) <= 80
    single = {**record, "threats": [{**each, "matrices": each["matrices"][-1:]} for each in record["threats"]]}
    console.print(transfer_tables(single))
    assert "smaller ε" not in console.export_text()


def test_rendering_needs_no_torch(record, tmp_path: Path) -> None:
    import json

    (tmp_path / "record.json").write_text(json.dumps(record))
    code = (
        "import json, sys, pathlib; from embattle.report import write_transfer; run = pathlib.Path(sys.argv[1]); "
        "write_transfer(run, json.loads((run / 'record.json').read_text())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {"report.html", "result.md", "summary.json"} <= {path.name for path in tmp_path.iterdir()}
