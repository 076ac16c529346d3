"""`embattle report`: everything but configuration, environment and units is made again, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import embattle as eb


@pytest.fixture
def finished(audit) -> Path:
    assert audit("--out", "run", "--gate", "ca+.w1 >= 0").code == 0
    return Path("run")


def test_everything_is_made_again(call, finished: Path) -> None:
    before = {name: (finished / name).read_bytes() for name in ("summary.json", "report.html")}
    for name in before:
        (finished / name).write_text("damaged")
    said = call("report", finished)
    assert said.code == 0, said.words
    summary = json.loads(before["summary.json"])
    summary["gates"] = []  # they were in the summary that was damaged
    assert eb.records.load_summary(finished) == summary
    assert call("report", finished, "--gate", "ca+.w1 >= 0").code == 0
    assert (finished / "report.html").read_bytes() == before["report.html"]
    again = (finished / "summary.json").read_text()
    assert again.replace('"given": "report"', '"given": "audit"').encode() == before["summary.json"]


def test_torch_is_not_loaded(finished: Path) -> None:
    (finished / "report.html").unlink()
    (finished / "summary.json").unlink()
    code = (
        "import sys; from embattle.cli.app import run; code = run(['report', 'run', '--gate', 'ca+.w1 >= 0']); "
        "heavy = {'torch', 'sklearn', 'transformers'} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Push an item up" in done.stdout
    assert (finished / "report.html").is_file()


def test_gates_of_the_audit_stay_and_those_of_a_report_do_not(call, finished: Path) -> None:
    said = call("report", finished, "--gate", "shift.distance > 100")
    assert said.code == 1
    assert "pass ca+.w1 >= 0" in said.words
    assert "FAIL shift.distance > 100" in said.words
    gates = eb.records.load_summary(finished)["gates"]
    assert [(gate["expression"], gate["given"]) for gate in gates] == [
        ("ca+.w1 >= 0", "audit"),
        ("shift.distance > 100", "report"),
    ]
    again = call("report", finished)
    assert again.code == 0
    assert "pass ca+.w1 >= 0" in again.words
    assert "shift.distance >" not in again.words + Path("run/report.html").read_text()
    twice = call("report", finished, "--gate", "ca+.w1 >= 0")
    assert twice.words.count("pass ca+.w1 >= 0") == 1
    (kept,) = eb.records.load_summary(finished)["gates"]
    assert kept["given"] == "audit"
    unknown = call("report", finished, "--gate", "ca+.w2 > 3")
    assert unknown.code == 2
    assert "'ca+.w2'" in unknown.words
    assert "ca+.w1" in unknown.words
    assert "pass ca+.w1 >= 0" in unknown.words
    untested = call("report", finished, "--gate", "ca+.w1@0.2 > 3")
    assert untested.code == 2
    assert "tested: 0, 0.1" in untested.words


def test_gates_in_a_summary_of_an_earlier_version_are_the_audits(call, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for gate in summary["gates"]:
        del gate["given"]
    (finished / "summary.json").write_text(json.dumps(summary))
    assert "pass ca+.w1 >= 0" in call("report", finished).words


def test_markdown_goes_to_standard_output_alone(call, finished: Path) -> None:
    said = call("report", finished, "--markdown")
    assert said.code == 0
    assert said.out.startswith("# Embattle audit: good on shop")
    assert "ca+.w1 >= 0" in said.out.replace("\\", "")
    assert said.err == ""


def test_an_unfinished_run_is_shown_as_one(call, finished: Path) -> None:
    plan = json.loads((finished / "config.json").read_text())["plan"]
    (finished / "units" / f"{plan[-1][:16]}.jsonl").unlink()
    (finished / "summary.json").unlink()
    said = call("report", finished)
    assert said.code == 0
    assert "unfinished: 4 of 5 units" in said.words
    assert eb.records.load_summary(finished)["complete"] is False
    gated = call("report", finished, "--gate", "ca+.w1 >= 0")
    assert gated.code == 3
    assert "4 of 5 units" in gated.err


def test_no_run(call, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in (("holiday", "holds no run"), ("nowhere", "does not exist"), ("file", "file")):
        said = call("report", tmp_path / name)
        assert said.code == 2
        assert words in said.words
        assert "Traceback" not in said.err
    assert list((tmp_path / "holiday").iterdir()) == []


def test_what_was_named_instead_of_a_run_is_told(call, finished: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "shop.safetensors").write_bytes(b"weights")
    for given, what in ((models, "holds models"), (models / "shop.safetensors", "is a model")):
        said = call("report", given)
        assert said.code == 2
        assert f"{given} {what}" in said.words
        assert f"embattle audit --model checkpoint:{models / 'shop.safetensors'}" in said.words
    said = call("report", finished / "report.html")
    assert "report.html is a file; name the folder that embattle audit or embattle reproduce printed" in said.words
    assert "printed by embattle audit or reproduce" in call("report", "nowhere").words


def test_a_reproduction_is_called_one(call, finished: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps({**config, "name": "ranking-table-1"}))
    said = call("report", finished)
    assert said.code == 2
    assert "run is a reproduction of ranking-table-1 without its paper.json" in said.words
    assert "audit" not in said.words
    (finished / "paper.json").write_text('{"described": {"judged": true}, "published": []}')
    said = call("report", finished)
    assert said.code == 2
    assert "start the reproduction of ranking-table-1 again in a new folder" in said.words
    assert "a reproduction of ranking-table-1, which is judged" in call("report", finished, "--gate", "recall@1 > 0").words


def test_a_damaged_run(call, finished: Path) -> None:
    unit = sorted((finished / "units").glob("*.jsonl"))[0]
    unit.write_bytes(unit.read_bytes()[:-20])
    said = call("report", finished)
    assert said.code == 2
    assert unit.name in said.words
    (finished / "config.json").write_text("[]")
    assert "config.json is damaged" in call("report", finished).words
