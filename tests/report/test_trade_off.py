"""The chart of ξ: values land where they should, nothing is drawn without a ξ, hostile names stay text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from embattle.report.reproduction import render_reproduction, write_reproduction
from embattle.report.trade_off import NAME, describe, lines, trade_off_svg

# Ranks of the neighbours to keep and of the chosen items for each ξ, ours and the paper's; by falling ξ, to be sorted.
PLACES = {100.0: ((1.5, 14.0), (0.6, 14.1)), 1.0: ((4.2, 6.7), (3.6, 6.3)), 0.0: ((30.0, 0.0), (33.6, 0.2))}


def cells(attack: str = "sp-qa+.m1", *, eps: float = 0.3, measured: bool = True) -> list[dict[str, Any]]:
    """Cells of a scenario under every ξ, with the clean ones beside."""
    made = []
    for xi, (ours, paper) in PLACES.items():
        name = f"{attack} ξ {xi:g}"
        for metric, place in (("kept_rank", 0), ("rank", 1)):
            for at in (0.0, eps):
                figure = {"value": ours[place], "ci": None, "n": 9, "unit": "%"}
                made.append({
                    "column": name if metric == "rank" else f"{name}, C_SP", "attack": name, "metric": metric, "eps": at,
                    "ours": figure if measured and at else None, "paper": paper[place] if at else None, "unit": "%",
                    "difference": None, "tolerance": 3.0, "verdict": None, "seed_deviation": None, "eight_bit": None,
                    "adaptive": None, "gain": None, "attainable": None,
                    "cost": {"paper": {"forwards": 31, "seconds": 0.1}},
                })  # fmt: skip
    return made


def markers(svg: str, colour: str) -> list[tuple[float, float]]:
    """Places of the markers of one colour, by x."""
    found = [
        (float(use.get("x")), float(use.get("y")))
        for use in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}use")
        if f"fill: var(--{colour})" in (use.get("style") or "")
    ]
    return sorted(found)


def test_lines_hold_both_ranks_by_rising_xi() -> None:
    (line,) = lines({"cells": cells()})
    assert line.title == "sp-qa+, 1 chosen, ε = 0.3"
    assert line.side("ours") == [(0, 30.0, 0.0), (1, 4.2, 6.7), (100, 1.5, 14.0)]
    assert line.side("paper") == [(0, 33.6, 0.2), (1, 3.6, 6.3), (100, 0.6, 14.1)]
    assert "ξ 1: 3.6 and 6.3" in describe([line])


def test_markers_lie_at_the_square_roots_of_their_ranks() -> None:
    svg = trade_off_svg({"cells": cells()})
    places = {
        "accent": sorted(ours for ours, _ in PLACES.values()),
        "attack": sorted(paper for _, paper in PLACES.values()),
    }
    values = np.sqrt(np.array([*places["accent"], *places["attack"]]))
    found = {colour: markers(svg, colour) for colour in places}
    # The legend repeats a marker of each side, one below the other.
    legend = {x for x, _ in found["accent"]} & {x for x, _ in found["attack"]}
    drawn = np.array([place for colour in places for place in found[colour] if place[0] not in legend])
    assert len(drawn) == len(values)
    for axis, sign in ((0, 1), (1, -1)):  # pixels count downwards
        slope, offset = np.polyfit(values[:, axis], drawn[:, axis], 1)
        assert sign * slope > 10
        assert np.abs(slope * values[:, axis] + offset - drawn[:, axis]).max() < 0.1


def test_a_panel_for_each_attack_with_the_fewest_chosen() -> None:
    found = lines({"cells": [*cells("sp-qa+.m5"), *cells("sp-qa+.m1"), *cells("sp-qa-.m2"), *cells("sp-qa-.m10")]})
    assert [line.title.split(", ε")[0] for line in found] == ["sp-qa+, 1 chosen", "sp-qa-, 2 chosen"]


def test_an_unfinished_run_shows_the_papers_line() -> None:
    (line,) = lines({"cells": cells(measured=False)})
    assert line.side("ours") == []
    assert "ours: nothing yet" in describe([line])
    svg = trade_off_svg({"cells": cells(measured=False)})
    assert ">paper<" in svg
    assert ">ours<" not in svg


@pytest.mark.parametrize("attack", ["sp-qa+.m1", "", None, "sp-qa+.m1 ξ", "sp-qa+.m1 ξ many", "ξ 1", "sp-qa+.m1 ξ 1e999"])
def test_without_a_xi_there_is_no_chart(attack: str | None, tmp_path: Path) -> None:
    some = cells()
    for cell in some:
        if attack is None:
            del cell["attack"]  # as in results of earlier versions
        else:
            cell["attack"] = attack
    assert trade_off_svg({"cells": some}) == ""
    assert trade_off_svg({"cells": []}) == ""
    assert trade_off_svg({"cells": [cell for cell in cells() if cell["attack"].endswith(" 1")]}) == ""


def test_hostile_names_stay_text() -> None:
    hostile = cells('<script>alert("1")</script>&$x^2$\x1b.m1')
    svg = trade_off_svg({"cells": hostile})
    ElementTree.fromstring(svg)
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg
    assert "\x1b" not in svg
    assert not re.search(r"(src|href)=.https?:", svg)


def test_the_chart_lies_beside_the_result_and_is_linked(tmp_path: Path) -> None:
    result = {
        "protocol": "p", "title": "t", "paper": "x", "recall": None, "scale": "cpu", "seeds": [0], "epochs": 1,
        "training_pictures": None, "gallery": None, "attacked": 3, "judged": True, "differs": [], "models": [],
        "complete": True, "units": {"done": 1, "planned": 1}, "verdicts": {"same": 0}, "environment": {"command": "c"},
        "cells": cells(),
    }  # fmt: skip
    assert write_reproduction(tmp_path / "with", result) == tmp_path / "with" / NAME
    assert (tmp_path / "with" / NAME).read_text(encoding="utf-8") == trade_off_svg(result)
    assert f"]({NAME})" in (tmp_path / "with" / "result.md").read_text()
    plain = {**result, "cells": [{**cell, "attack": "sp-qa+.m1"} for cell in cells()]}
    assert write_reproduction(tmp_path / "without", plain) is None
    assert not (tmp_path / "without" / NAME).exists()
    assert NAME not in render_reproduction(plain)


def test_committed_results_of_earlier_versions_have_none() -> None:
    for path in sorted((Path(__file__).parents[2] / "results").glob("ranking-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert any("ξ" in cell["column"] for cell in result["cells"]) == bool(lines(result)), path.name
