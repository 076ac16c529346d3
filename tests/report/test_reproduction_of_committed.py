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


def table_of(text: str) -> list[dict[str, str]]:
    """The lines of the table of cells, by the names of its columns."""
    header, _, *lines = (
        [part.strip() for part in line.strip("|").split("|")]
        for line in text.partition("| column |")[2].partition("\n\n")[0].splitlines()
    )
    return [dict(zip(("column", *header), line, strict=True)) for line in lines]


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.stem)
def test_no_column_of_its_table_is_empty_and_the_legend_speaks_of_columns_that_are_there(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    text = render_reproduction(result)
    lines = table_of(text)
    assert len(lines) == len(result["cells"])
    for name in lines[0]:
        assert {line[name] for line in lines} != {"–"}, name
    for name, key in (
        ("free point", "attainable"),
        ("adaptive [95 % over pictures]", "adaptive"),
        ("adaptive loss ≥", "gain"),
    ):
        assert (name in lines[0]) == any(cell[key] is not None for cell in result["cells"]), name
        assert (f"*{name.partition(' [')[0]}*" in text) == (name in lines[0]), name
    # Where the paper prints no figures there is nothing to judge, and no column for it.
    assert ("verdict" in lines[0]) == any(cell["verdict"] for cell in result["cells"])
    for line, cell in zip(lines, result["cells"], strict=True):
        assert line["column"] == cell["column"]
        assert line.get("verdict", "–") == (cell["verdict"] or "–")
    assert ("*C_SP*: mean rank of the neighbours to keep" in text) == any("C_SP" in line["column"] for line in lines)


@pytest.mark.parametrize("path", REPRODUCTIONS, ids=lambda path: path.stem)
def test_the_committed_page_is_the_one_that_is_rendered(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == render_reproduction(result)


def test_there_are_committed_results() -> None:
    assert len(REPRODUCTIONS) >= 4
