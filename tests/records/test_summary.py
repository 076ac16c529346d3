from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embattle.errors import InputError, RunIncomplete
from embattle.records import (
    Figure,
    LocalStore,
    Unit,
    build_summary,
    load_summary,
    parse_gate,
    wilson,
    write_json_atomic,
)

Writer = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, write_example_run: Writer) -> Path:
    return write_example_run(tmp_path / "run")


def sample(threat: str, eps: float, number: int, **change: Any) -> dict[str, Any]:
    row = {
        "row": "sample", "threat": threat, "eps": eps, "sample": f"s/{number}", "status": "failed", "success": False,
        "metrics": {"rank": 10.0}, "cost": {"forwards": 10, "backwards": 10},
    }  # fmt: skip
    return {**row, **change}


def described(threat: str) -> dict[str, Any]:
    metrics = {"rank": {"unit": "%", "higher_is_better": True, "title": "rank"}}
    return {"row": "threat", "threat": threat, "title": threat.upper(), "metric": "rank", "metrics": metrics}


def write(folder: Path, *units: list[dict[str, Any]], seconds: tuple[float | None, ...] = ()) -> Path:
    store = LocalStore(folder)
    plan = []
    for number, rows in enumerate(units):
        unit = Unit(kind="attack", params={"number": number}, samples=(), needs=())
        cost = {"seconds": seconds[number]} if number < len(seconds) and seconds[number] is not None else {}
        store.put(unit, rows, {}, cost)  # type: ignore[arg-type]
        plan.append(unit.id)
    (folder / "config.json").write_text(json.dumps({"hash": "0", "config": {}, "plan": plan}))
    (folder / "env.json").write_text(json.dumps({"created": "2025", "command": "c", "embattle": "0.1.0"}))
    return folder


def test_the_example_run_has_the_documented_schema(run: Path) -> None:
    summary = build_summary(run)
    assert list(summary) == [
        "schema", "name", "created", "command", "embattle", "commit", "environment", "config_hash", "subject", "clean",
        "threats", "findings", "skipped", "warnings", "notes", "units", "complete",
    ]  # fmt: skip
    assert (summary["schema"], summary["name"], summary["complete"]) == ("embattle.summary/1", "audit", True)
    assert summary["units"] == {"planned": 13, "done": 13, "quarantined": 0}
    assert summary["subject"]["gallery"] == 500
    assert summary["skipped"] == [{"scenario": "recall under shift", "reason": "the folder has no labels"}]
    assert summary["environment"]["torch"] == "2.6.0"
    assert Figure.from_json(summary["clean"]["recall@1"]).value == 0.964
    for threat in summary["threats"]:
        assert [point["eps"] for point in threat["curve"]] == [0.0, 0.01, 0.03, 0.1]
        assert set(threat["curve"][0]["figures"]) == {"rank", "distance", "success"}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_figures_are_the_means_and_shares_of_the_rows(run: Path) -> None:
    """Slow reference: the rows read with plain json, averaged with plain numpy."""
    rows = [
        json.loads(line)
        for path in (run / "units").glob("*.jsonl")
        for line in path.read_text().splitlines()[1:]
        if json.loads(line)["row"] == "sample"
    ]
    for threat in build_summary(run)["threats"]:
        for point in threat["curve"]:
            here = [row for row in rows if (row["threat"], row["eps"]) == (threat["threat"], point["eps"])]
            fine = [row for row in here if row["status"] != "non_finite"]
            rank = Figure.from_json(point["figures"]["rank"])
            assert rank.value == pytest.approx(np.mean([row["metrics"]["rank"] for row in fine]))
            assert (rank.n, rank.failed, rank.unit) == (len(fine), len(here) - len(fine), "%")
            assert rank.ci is not None
            assert rank.ci[0] < rank.value < rank.ci[1]
            flags = [row["success"] for row in fine if row["success"] is not None]
            success = Figure.from_json(point["figures"]["success"])
            assert (success.value, success.ci) == (sum(flags) / len(flags), wilson(sum(flags), len(flags)))
            assert (success.undefined, success.failed) == (len(fine) - len(flags), len(here) - len(fine))
            assert success.higher_is_better is False
            assert point["cost"]["forwards"] == np.mean([row["cost"]["forwards"] for row in here])


def test_failed_and_undefined_samples_never_enter_a_mean(tmp_path: Path) -> None:
    rows = [sample("t", 0.1, 0, metrics={"rank": 4.0}, success=True), sample("t", 0.1, 1, metrics={"rank": None})]
    rows += [sample("t", 0.1, 2, status="non_finite", metrics={"rank": 99.0}, success=True)]
    rows += [sample("t", 0.1, 3, metrics={"rank": 8.0}, success=None), sample("t", 0.1, 4, metrics={})]
    (point,) = build_summary(write(tmp_path, [described("t"), *rows]))["threats"][0]["curve"]
    rank, success = (Figure.from_json(point["figures"][name]) for name in ("rank", "success"))
    assert (rank.value, rank.n, rank.undefined, rank.failed) == (6.0, 2, 2, 1)
    assert (success.value, success.n, success.undefined, success.failed) == (1 / 3, 3, 1, 1)


def test_weakest_threat_first(tmp_path: Path) -> None:
    shares = {
        "safe": {0.01: 0, 0.2: 1}, "safe-but-worse": {0.01: 0, 0.2: 4}, "f": {0.01: 5, 0.2: 10},
        "b": {0.01: 0, 0.2: 10}, "c": {0.05: 6, 0.2: 10}, "f-smaller": {0.005: 5, 0.2: 5}, "f-stronger": {0.01: 9},
        "undefined": {0.1: None}, "clean-only": {0.0: 0},
    }  # fmt: skip
    rows = [described(name) for name in shares]
    for name, curve in shares.items():
        for eps, wins in curve.items():
            flags = [None] * 10 if wins is None else [number < wins for number in range(10)]
            rows += [sample(name, eps, number, success=flag) for number, flag in enumerate(flags)]
    threats = build_summary(write(tmp_path, rows))["threats"]
    assert [(threat["threat"], threat["grade"], threat["half_eps"]) for threat in threats] == [
        ("f-smaller", "F", 0.005), ("f", "F", 0.01), ("f-stronger", "F", 0.01), ("c", "F", 0.05), ("b", "D", 0.2),
        ("safe-but-worse", "B", None), ("safe", "B", None), ("clean-only", None, None), ("undefined", None, None),
    ]  # fmt: skip


def test_rows_of_one_point_may_lie_in_several_units(tmp_path: Path) -> None:
    first = [described("t"), sample("t", 0.1, 0, metrics={"rank": 1.0})]
    second = [sample("t", 0.1, 1, metrics={"rank": 3.0}), sample("t", 0, 2)]
    curve = build_summary(write(tmp_path, first, second))["threats"][0]["curve"]
    assert [(point["eps"], point["figures"]["rank"]["value"]) for point in curve] == [(0, 10.0), (0.1, 2.0)]


def test_seconds_are_shared_by_passes_through_the_model(tmp_path: Path) -> None:
    rows = [described("t"), sample("t", 0.0, 0, cost={"forwards": 1, "backwards": 0})]
    rows += [sample("t", 0.1, number, cost={"forwards": 5, "backwards": 4}) for number in (1, 2)]
    curve = build_summary(write(tmp_path, rows, seconds=(19.0,)))["threats"][0]["curve"]
    assert [point["cost"]["seconds"] for point in curve] == [pytest.approx(1.0), pytest.approx(9.0)]
    assert curve[1]["cost"] == {"forwards": 5.0, "backwards": 4.0, "seconds": pytest.approx(9.0)}


def test_seconds_are_missing_when_one_unit_has_none(tmp_path: Path) -> None:
    units = [[described("t"), sample("t", 0.1, 0)], [sample("t", 0.1, 1)]]
    assert build_summary(write(tmp_path, *units, seconds=(1.0, None)))["threats"][0]["curve"][0]["cost"] == {
        "forwards": 10.0, "backwards": 10.0, "seconds": None,
    }  # fmt: skip


def test_an_unfinished_run_says_so(tmp_path: Path, write_example_run: Writer) -> None:
    summary = build_summary(write_example_run(tmp_path, missing=5))
    assert summary["complete"] is False
    assert summary["units"] == {"planned": 13, "done": 8, "quarantined": 1}
    assert {threat["threat"]: threat["grade"] for threat in summary["threats"]}["sp-qa+.m1"] is None


def test_attacks_without_a_description_are_a_note(tmp_path: Path) -> None:
    summary = build_summary(write(tmp_path, [sample("t", 0.1, 0)]))
    assert summary["threats"] == []
    assert summary["notes"] == ["The attacks of t have results, but their description is not finished yet."]


def test_units_outside_the_plan_do_not_count(run: Path) -> None:
    before = build_summary(run)
    LocalStore(run).put(Unit(kind="attack", params={}, samples=(), needs=()), [sample("ca+.w1", 0.1, 99)])
    assert build_summary(run) == before


def test_findings_know_their_unit_and_follow_the_threats(run: Path) -> None:
    summary = build_summary(run)
    order = [threat["threat"] for threat in summary["threats"]]
    assert [finding["threat"] for finding in summary["findings"]] == order
    store = LocalStore(run)
    for finding in summary["findings"]:
        names = [finding[name] for name in ("original", "adversarial", "difference")]
        names += [item["blob"] for listed in finding["lists"] for item in listed["items"]]
        assert all(store.blob(finding["unit"], name).startswith(b"\x89PNG") for name in names)


def test_the_same_rows_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    write_json_atomic(first, build_summary(run))
    write_json_atomic(second, build_summary(shutil.copytree(run, tmp_path / "copy")))
    assert first.read_bytes() == second.read_bytes()


def test_gates_read_the_summary(run: Path) -> None:
    write_json_atomic(run / "summary.json", build_summary(run))
    summary = load_summary(run)
    assert parse_gate("recall@1 >= 0.9").check(summary).passed
    assert not parse_gate("ca+.w1@0.03 > 40").check(summary).passed


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"row": "dance"}, "'dance'"),
        ({"x": 1}, "None"),
        ({"row": ["sample"]}, "known kinds are sample"),
        ({"row": "sample", "threat": "t"}, "without eps, status, success, metrics, cost"),
        ({"row": "clean", "figure": "recall@1"}, "without value"),
        ({"row": "threat", "threat": "t"}, "without metric, metrics"),
        ({"row": "note"}, "without text"),
        ({"row": "finding", "threat": "t", "eps": 0.1}, "without original"),
    ],
)
def test_rows_of_another_version_are_a_sentence(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        build_summary(write(tmp_path, [row]))
    assert says in str(caught.value)


def test_a_metric_nobody_described_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not name"):
        build_summary(write(tmp_path, [described("t"), sample("t", 0.1, 0, metrics={"rank": 1.0, "depth": 2.0})]))


@pytest.mark.parametrize("name", ["config.json", "env.json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist"), (b"", "no JSON"), (b"[]", "damaged"), (b"{}", "missing"), (b"\xff", "no JSON")],
)
def test_a_folder_that_is_no_run_is_a_sentence(run: Path, name: str, content: bytes | None, says: str) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        build_summary(run)
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_a_summary_of_another_version_or_a_damaged_one_is_a_sentence(run: Path) -> None:
    path = run / "summary.json"
    with pytest.raises(InputError, match="does not exist"):
        load_summary(run)
    summary = build_summary(run)
    write_json_atomic(path, summary)
    assert load_summary(path) == load_summary(run) == summary
    write_json_atomic(path, {**summary, "schema": "embattle.summary/2"})
    with pytest.raises(InputError, match="embattle report RUN"):
        load_summary(path)
    write_json_atomic(path, {"schema": "embattle.summary/1"})
    with pytest.raises(InputError, match="clean, threats, findings"):
        load_summary(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="no JSON"):
        load_summary(path)


@pytest.mark.parametrize("obj", [{"x": math.nan}, {"x": b""}, {"x": {1, 2}}])
def test_what_is_no_json_is_not_written(tmp_path: Path, obj: Any) -> None:
    with pytest.raises(InputError, match=r"summary\.json"):
        write_json_atomic(tmp_path / "summary.json", obj)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json_atomic(path, {"old": 1})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunIncomplete):
        write_json_atomic(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_summary_is_built_without_torch(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from embattle.records import build_summary;"
        "summary = build_summary(Path(sys.argv[1]));"
        "print(len(summary['threats']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]


def test_a_large_run_is_summarised_in_seconds(tmp_path: Path, write_example_run: Writer) -> None:
    """100,000 sample rows with five figures each, 1,000 findings."""
    run = write_example_run(tmp_path, samples=8334, extra=2, findings=0)
    unit = Unit(kind="attack", params={"findings": True}, samples=(), needs=())
    items = [{"id": f"x/{i}", "blob": f"i{i}.png", "similarity": 0.5, "rank": i, "framed": False} for i in range(10)]
    finding = {
        "row": "finding", "threat": "ca+.w1", "eps": 0.1, "original": "o.png", "adversarial": "a.png",
        "difference": "d.png", "lists": [{"title": "before", "items": items}, {"title": "after", "items": items}],
    }  # fmt: skip
    LocalStore(run).put(unit, [{**finding, "sample": f"x/{number}"} for number in range(1000)])
    config = json.loads((run / "config.json").read_text())
    config["plan"].append(unit.id)
    (run / "config.json").write_text(json.dumps(config))
    start = time.process_time()
    summary = build_summary(run)
    assert time.process_time() - start < 6  # 3 s on an idle machine of two cores
    assert len(summary["findings"]) == 1000
    assert sum(point["figures"]["rank"]["n"] for threat in summary["threats"] for point in threat["curve"]) > 100_000
