"""`embattle compare`: two audits beside each other, what is named as different, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def two(audit):
    """Audits of two models on the same pictures, in the folders a and b."""
    assert audit("--out", "a").code == 0
    assert audit("--out", "b", model="another").code == 0


def test_two_audits_beside_each_other(call, two) -> None:
    said = call("compare", "a", "b", "--names", "old,new", "--out", "both")
    assert said.code == 0, said.words
    assert sorted(path.name for path in Path("both").iterdir()) == ["comparison.json", "comparison.md", "report.html"]
    assert "Success, old" in said.words
    assert said.out.strip().endswith("report  both/report.html")
    found = json.loads(Path("both/comparison.json").read_text())
    assert (found["names"], found["paired"], found["settings"]) == (["old", "new"], True, [])
    for name, run in zip("ab", found["runs"], strict=True):
        summary = json.loads(Path(name, "summary.json").read_text())
        assert run["config_hash"] == summary["config_hash"]
        assert run["subject"] == summary["subject"]
    assert {threat["threat"] for threat in found["threats"]} == {"ca+.w1", "shift"}
    assert "old" in Path("both/report.html").read_text()
    said = call("compare", "a", "b", "--names", "old,new", "--out", "both", "--markdown")
    assert said.out == Path("both/comparison.md").read_text()
    assert said.out.startswith("# Embattle: old and new")


def test_without_out_the_folder_is_named_by_both_runs(call, two) -> None:
    assert call("compare", "a", "b").code == 0
    hashes = [json.loads(Path(name, "config.json").read_text())["hash"][:8] for name in "ab"]
    assert [path.name for path in Path("runs").iterdir()] == ["-".join(["compare", *hashes])]


def test_a_hash_that_is_a_path_names_no_folder(call, two) -> None:
    config = json.loads(Path("b/config.json").read_text())
    Path("b/config.json").write_text(json.dumps({**config, "hash": "../../../../elsewhere"}))
    said = call("compare", "a", "b")
    assert said.code == 0, said.words
    (page,) = Path.cwd().rglob("comparison.json")
    assert page.parent.parent == Path.cwd() / "runs"
    assert not [path for path in Path.cwd().parent.rglob("comparison.json") if path != page]


def test_it_needs_no_torch(two) -> None:
    code = (
        "import sys; from embattle.cli.app import run; code = run(['compare', 'a', 'b', '--out', 'both']); "
        "heavy = {'torch', 'sklearn', 'transformers'} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_other_settings_are_named_and_other_galleries_not_paired(call, audit, two, unlabelled: Path) -> None:
    assert audit("--out", "steps", "--steps", 4, "--seed", 5, model="another").code == 0
    said = call("compare", "a", "steps", "--out", "both")
    assert said.code == 0, said.words
    page = Path("both/report.html").read_text()
    for told in ("audit.steps is 2 there and 4 here", "audit.seed is 0 there and 5 here"):
        assert told in page
    # Another seed attacks other pictures: only those that both attacked are pairs.
    attacked = [{row["sample"] for row in samples(name)} for name in ("a", "steps")]
    found = json.loads(Path("both/comparison.json").read_text())
    counts = {
        (cell["difference"] or {"n": 0})["n"]
        for threat in found["threats"]
        for point in threat["points"]
        for cell in point["figures"].values()
    }
    assert counts == {len(attacked[0] & attacked[1])}
    assert audit("--out", "other", data=unlabelled).code == 0
    said = call("compare", "a", "other", "--out", "apart")
    assert said.code == 0, said.words
    assert not json.loads(Path("apart/comparison.json").read_text())["paired"]
    assert "unpaired" in said.words
    assert "harder" not in said.words


def samples(folder: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for path in Path(folder, "units").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [row for row in rows if row.get("row") == "sample"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a"], ["RUN_B"]),
        (["a", "nowhere"], ["nowhere", "does not exist"]),
        (["a", "shelf"], ["shelf", "config.json", "does not exist"]),
        (["a", "b/report.html"], ["report.html"]),
        (["a", "b", "--names", "one"], ["'one'", "before,after"]),
        (["a", "b", "--names", "x,x"], ["'x,x'", "two different names"]),
        (["a", "b", "--names", ","], ["','", "before,after"]),
        (["a", "b", "--names", "x,y,z"], ["'x,y,z'"]),
        (["a", "b", "--out", "a"], ["a is the folder of a run", "another --out"]),
        (["a", "b", "--out", "a/report.html"], ["a/report.html"]),
        (["a", "b", "--gate", "ca+.w1 > 3"], ["--gate"]),
    ],
)
def test_what_cannot_be_compared(call, two, arguments: list[str], words: list[str]) -> None:
    Path("shelf").mkdir()
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    said = call("compare", *arguments)
    assert said.code == 2, said.words
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.words, said.words
    assert {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()} == before


def test_audits_without_a_threat_in_common(call, audit) -> None:
    assert audit("--out", "a", only="ca+").code == 0
    assert audit("--out", "b", only="shift").code == 0
    said = call("compare", "a", "b", "--out", "both")
    assert said.code == 2
    assert "no threat in common" in said.words
    assert not Path("both").exists()


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("harden", {"harden": {}, "audit": {}}, ["b is a hardening", "b/before", "b/after"]),
        ("transfer", {"transfer": {}}, ["b is no audit, but a run of transfer"]),
        ("ranking-table-1", {"protocol": "ranking-table-1"}, ["b is no audit, but a run of ranking-table-1"]),
    ],
)
def test_runs_of_something_else(call, two, name: str, config: dict[str, object], words: list[str]) -> None:
    content = json.loads(Path("b/config.json").read_text())
    Path("b/config.json").write_text(json.dumps({**content, "name": name, "config": config}))
    said = call("compare", "a", "b", "--out", "both")
    assert said.code == 2
    for word in words:
        assert word in said.words


@pytest.mark.parametrize("damage", ["cut", "metrics", "status", "config"])
def test_damaged_runs(call, two, damage: str) -> None:
    if damage == "config":
        Path("b/config.json").write_text("{")
    for unit in Path("b/units").glob("*.jsonl"):
        text = unit.read_bytes()
        if damage == "cut":
            unit.write_bytes(text[:-20])
        elif damage != "config":
            # A file that was edited is noticed by its checksum, so the rows are replaced behind it.
            unit.write_bytes(text.replace(f'"{damage}"'.encode(), b'"unknown"'))
    said = call("compare", "a", "b", "--out", "both")
    assert said.code == 2, said.words
    assert "Traceback" not in said.err
    assert not Path("both").exists()


def test_hostile_names_stay_text(call, audit, two) -> None:
    shutil.copytree("b", "c")
    said = call("compare", "a", "c", "--names", "<script>alert(1)</script>,[bold]x", "--out", "both")
    assert said.code == 0, said.words
    page = Path("both/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
