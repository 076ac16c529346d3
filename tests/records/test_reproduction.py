"""Cells of a reproduction from rows written by hand: tolerance, verdict, gain, what is left out."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from embattle.errors import InputError
from embattle.records import LocalStore, Published, Unit, build_reproduction, write_json_atomic
from embattle.records.reproduction import PAPER_FILE, paper_order, verdict

RESULTS = Path(__file__).resolve().parents[2] / "results"

DESCRIBED = {"protocol": "p", "title": "t", "paper": "x", "judged": True}
PLACE = {"column": "ca+.w1", "metric": "rank", "unit": "%", "rises": False, "width": 1, "tolerance": 3.0, "eps": 0.1}


def folder(
    path: Path, by_seed: dict[int, list[float | None]], *, paper: float | None, judged: bool = True,
    adaptive: dict[int, list[float]] | None = None, **place: Any,
) -> dict[str, Any]:  # fmt: skip
    """The one cell of a run with the given ranks; the attacker's loss is minus the rank."""
    store, plan = LocalStore(path), []
    for role, ranks in (("paper", by_seed), ("adaptive", adaptive or {})):
        for seed, values in ranks.items():
            unit = Unit(kind="attack", params={"role": role, "seed": seed}, samples=(), needs=())
            rows = [
                {
                    "row": "sample", "column": "ca+.w1", "eps": 0.1, "role": role, "seed": seed, "sample": str(i),
                    "metrics": None if rank is None else {"rank": rank}, "forwards": 21,
                    "eight_bit": None if rank is None else {"rank": rank + 1}, "loss": None if rank is None else -rank,
                }
                for i, rank in enumerate(values)
            ]  # fmt: skip
            store.put(unit, rows, {}, {"seconds": 9.0, "attack_seconds": 4.0 * len(rows)})
            plan.append(unit.id)
    write_json_atomic(path / "config.json", {"hash": "0" * 64, "config": {}, "plan": plan})
    command = "embattle reproduce p --out somewhere --seeds 0"
    write_json_atomic(path / "env.json", {"created": "now", "command": command, "embattle": "0"})
    published = [{**PLACE, "value": paper, **place}]
    write_json_atomic(path / PAPER_FILE, {"described": {**DESCRIBED, "judged": judged}, "published": published})
    result = build_reproduction(path)
    assert result["environment"]["command"] == "embattle reproduce p --seeds 0"
    cell: dict[str, Any] = result["cells"][0]
    return cell


@pytest.mark.parametrize(
    ("paper", "tolerance", "told"),
    [(9.5, 3.0, "weaker"), (10.5, 3.0, "same"), (15.5, 3.0, "same"), (16.5, 3.0, "stronger"), (9.5, 4.0, "same")],
)
def test_the_stated_tolerance_decides_where_seeds_agree(paper: float, tolerance: float, told: str, tmp_path: Path) -> None:
    cell = folder(tmp_path, {0: [13.0] * 50, 1: [13.0] * 50}, paper=paper, tolerance=tolerance)
    assert cell["tolerance"] == tolerance
    assert cell["difference"] == pytest.approx(13.0 - paper)
    assert cell["verdict"] == told


def test_two_deviations_between_seeds_decide_where_they_are_more(tmp_path: Path) -> None:
    means = {0: 10.0, 1: 14.0, 2: 21.0}
    cell = folder(tmp_path, {seed: [mean] * 200 for seed, mean in means.items()}, paper=6.0)
    assert cell["by_seed"] == {"0": 10.0, "1": 14.0, "2": 21.0}
    assert cell["tolerance"] == pytest.approx(2 * statistics.stdev(means.values()))
    assert cell["verdict"] == "same"


def test_half_of_a_wide_interval_decides_where_it_is_more(tmp_path: Path) -> None:
    cell = folder(tmp_path, {0: [0.0, 40.0, 0.0, 40.0]}, paper=10.0)
    low, high = cell["ours"]["ci"]
    assert cell["seed_deviation"] is None
    assert cell["tolerance"] == pytest.approx((high - low) / 2)
    assert cell["tolerance"] > 3
    assert cell["verdict"] == "same"


def test_rising_columns_are_read_the_other_way(tmp_path: Path) -> None:
    assert folder(tmp_path, {0: [50.0] * 9}, paper=10.0, rises=True)["verdict"] == "stronger"


def test_nothing_is_judged_without_a_figure_at_no_eps_or_in_a_smoke_test(tmp_path: Path) -> None:
    assert folder(tmp_path / "a", {0: [50.0] * 9}, paper=None)["verdict"] is None
    assert folder(tmp_path / "b", {0: [50.0] * 9}, paper=10.0, judged=False)["verdict"] is None
    assert folder(tmp_path / "c", {}, paper=10.0, eps=0.0)["verdict"] is None


def test_lost_pictures_are_counted_and_not_averaged_in(tmp_path: Path) -> None:
    cell = folder(tmp_path, {0: [10.0, None, 20.0]}, paper=15.0)
    assert cell["ours"]["value"] == 15.0
    assert (cell["ours"]["n"], cell["ours"]["failed"]) == (2, 1)
    assert cell["eight_bit"]["value"] == 16.0
    assert cell["cost"]["paper"] == {"forwards": 21, "seconds": 4.0}


def test_gains_are_paired_by_picture_and_seed(tmp_path: Path) -> None:
    cell = folder(
        tmp_path, {0: [10.0, 30.0], 1: [20.0, None]}, adaptive={0: [9.0, 31.0], 1: [14.0, 5.0]}, paper=20.0
    )  # losses are minus ranks: gains of 1, -1 and 6
    assert cell["gain"]["loss"]["value"] == pytest.approx(2.0)
    assert cell["gain"]["at_least"] == pytest.approx(2 / 3)
    assert cell["cost"]["adaptive"]["forwards"] == 21


def test_a_folder_without_its_paper_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {0: [1.0]}, paper=1.0)
    (tmp_path / PAPER_FILE).unlink()
    with pytest.raises(InputError, match=r"paper\.json does not exist"):
        build_reproduction(tmp_path)


def of_order(
    paper: float | None, ours: float, *, half: float = 1.0, eps: float = 0.3, column: str = "c", **kind: Any
) -> dict[str, Any]:
    figure = {"value": ours, "ci": [ours - half, ours + half]}
    return {
        "column": column,
        "eps": eps,
        "unit": "%",
        "rises": False,
        "metric": "rank",
        "paper": paper,
        "ours": figure,
    } | kind


def ordered(*cells: dict[str, Any]) -> tuple[int, int]:
    found = paper_order(cells)
    return found["pairs"], found["same"]


def test_order_counts_only_pairs_that_the_paper_has_further_apart_than_our_intervals() -> None:
    cell = of_order
    # 10 | 20 | 21: the last two lie within √2 of each other and say nothing.
    assert ordered(cell(10, 11), cell(20, 25), cell(21, 24)) == (2, 2)
    assert ordered(cell(10, 30), cell(20, 25), cell(21, 24)) == (2, 0)
    # With wide intervals the same pairs are not told apart; the clean system and other ε and gaps are left out.
    assert ordered(cell(10, 11, half=9), cell(20, 25, half=9)) == (0, 0)
    assert ordered(cell(10, 9, eps=0.0), cell(20, 25, eps=0.0)) == (0, 0)
    assert ordered(cell(10, 9), cell(20, 25, eps=0.1), cell(None, 50)) == (0, 0)
    # Equal figures of ours are no order.
    assert ordered(cell(10, 20), cell(20, 20)) == (1, 0)


@pytest.mark.parametrize("kind", [{"unit": "distance"}, {"rises": True}, {"metric": "kept_rank"}])
def test_figures_of_different_kinds_have_no_order(kind: dict[str, Any]) -> None:
    assert ordered(of_order(10, 9), of_order(20, 25, **kind)) == (0, 0)


def test_seen_and_unseen_pictures_have_an_order() -> None:
    assert ordered(of_order(10, 9), of_order(20, 25, metric="seen_rank")) == (1, 1)


def test_an_order_that_the_clean_system_has_already_is_counted_beside() -> None:
    attacked = [of_order(10, 11, column="a"), of_order(20, 25, column="b"), of_order(30, 35, column="c")]
    clean = [of_order(50, value, column=name, eps=0.0) for name, value in (("a", 40.0), ("b", 50.0), ("c", 45.0))]
    assert paper_order([*attacked, *clean]) == {"pairs": 3, "same": 3, "unattacked": 2}
    assert paper_order(attacked)["unattacked"] == 0


@pytest.mark.parametrize(
    ("rank", "defended", "told", "short"),
    [
        (20.0, False, "weaker", {"attack": 1, "defense": 0}),
        (20.0, True, "weaker", {"attack": 0, "defense": 0}),
        (5.0, False, "stronger", {"attack": 0, "defense": 0}),
        (5.0, True, "stronger", {"attack": 0, "defense": 1}),
        (12.0, True, "same", {"attack": 0, "defense": 0}),
    ],
)
def test_a_defense_falls_short_where_its_model_is_easier_to_attack(
    rank: float, defended: bool, told: str, short: dict[str, int], tmp_path: Path
) -> None:
    assert folder(tmp_path, {0: [rank] * 50}, paper=12.0, defended=defended)["verdict"] == told
    assert build_reproduction(tmp_path)["short"] == short


def test_a_model_without_its_defense_fails_the_table_of_the_defense() -> None:
    """The cells of the plain model, measured for Table 1, against what Table 2 has of the defended one."""
    plain = json.loads((RESULTS / "ranking-table-1.json").read_text())["cells"]
    theirs = json.loads((RESULTS / "ranking-table-2.json").read_text())["cells"]
    paper = {(cell["column"], cell["eps"]): cell["paper"] for cell in theirs if cell["eps"]}
    told = [
        verdict(cell["ours"]["value"] - paper[cell["column"], cell["eps"]], cell["tolerance"], rises=cell["rises"])
        for cell in plain
        if cell["eps"]
    ]
    place = Published(**{**PLACE, "value": 1.0, "defended": True})
    assert told.count(place.short) > len(told) / 2
