"""Committed results were made by earlier versions; their pages are rendered by this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embattle.report import render_reproduction

RESULTS = sorted(Path(__file__).parents[2].glob("results/*.json"))
REPRODUCTIONS = [
    path for path in RESULTS if "reproduction" in json.loads(path.read_text(encoding="utf-8")).get("schema", "")
]


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.stem)
def test_a_committed_result_is_rendered(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    text = render_reproduction(result)
    assert text.count("\n| ") >= len(result["cells"])
    recall = result["models"][0]["recall@1"]["value"]
    assert f"Recall@1 of the clean models: {100 * recall:.1f} %" in text
    assert f"Made by `{result['environment']['command']}`" in text


def test_there_are_committed_results() -> None:
    assert len(REPRODUCTIONS) >= 4
