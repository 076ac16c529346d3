"""What `embattle reproduce` prints below its table: the sentence that matters, and where everything lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embattle.cli.verdict import conclude_reproduction
from embattle.errors import GateFailed

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def result() -> dict[str, Any]:
    """A reproduction with verdicts of every kind and a chart."""
    found: dict[str, Any] = json.loads((RESULTS / "ranking-table-7.json").read_text(encoding="utf-8"))
    return found


def below(told: str, last: str) -> str:
    """What stands between the legend of the table and the line of the result, on one line."""
    legend, result = "adaptive: Auto-PGD, equally many forwards.", f"result {last}"
    return " ".join(told.split()).partition(legend)[2].partition(result)[0].strip()


def test_a_finished_one_counts_its_verdicts_as_the_page_does(
    result: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GateFailed):
        conclude_reproduction(tmp_path, result)
    told = capsys.readouterr().out
    counts = ", ".join(f"{count} {name}" for name, count in result["verdicts"].items())
    said = below(told, str(tmp_path / "result.md"))
    assert said == f"Of 64 attacked cells with a published figure: {counts}."
    assert f"**{said}**" in (tmp_path / "result.md").read_text(encoding="utf-8")


def test_a_smoke_test_says_so_and_a_chart_is_named(
    result: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conclude_reproduction(tmp_path, {**result, "scale": "smoke", "judged": False, "short": {}})
    told = capsys.readouterr().out
    said = below(told, str(tmp_path / "result.md"))
    assert said == "A smoke test: too little training and too few pictures to be compared with the paper."
    assert f"**{said}**" in (tmp_path / "result.md").read_text(encoding="utf-8")
    where = [f"result  {tmp_path / 'result.md'}", f"chart   {tmp_path / 'xi.svg'}"]
    assert told.rstrip().splitlines()[-2:] == where
    assert (tmp_path / "xi.svg").is_file()


def test_an_unfinished_one_says_how_to_go_on_and_counts_nothing(
    result: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conclude_reproduction(tmp_path, {**result, "complete": False, "units": {"done": 3, "planned": 9}})
    said = below(capsys.readouterr().out, str(tmp_path / "result.md"))
    assert said == "unfinished: 3 of 9 units; the same reproduce command goes on"
