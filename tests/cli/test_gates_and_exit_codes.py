"""What a command's exit code says: 0 fine, 1 a gate, 2 bad input, 3 incomplete, 70 a bug of ours."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
import torch

import embattle as eb
from embattle.audit import AuditConfig, attack_unit, prospect, run
from embattle.records import LocalStore


def units(folder: str = "run") -> dict[str, bytes]:
    """The files of finished units, without their costs."""
    files = Path(folder, "units").rglob("*")
    return {path.name: path.read_bytes() for path in files if path.suffix in (".jsonl", ".png")}


def test_gates_that_hold_and_gates_that_do_not(audit) -> None:
    passed = audit("--gate", "ca+.w1@0.1 >= 0", "--gate", "recall@1 > 0.5", "--out", "run")
    assert passed.code == 0, passed.words
    assert "pass ca+.w1@0.1 >= 0" in passed.words
    failed = audit("--gate", "ca+.w1@0.1 >= 0", "--gate", "shift.distance > 100", "--out", "run")
    assert failed.code == 1
    assert "FAIL shift.distance > 100" in failed.words
    assert failed.err.strip().endswith("embattle: 1 of 2 gates failed: shift.distance > 100")
    gates = eb.records.load_summary(Path("run"))["gates"]
    assert [(gate["expression"], gate["passed"]) for gate in gates] == [
        ("ca+.w1@0.1 >= 0", True),
        ("shift.distance > 100", False),
    ]
    assert "shift.distance" in Path("run/report.html").read_text()


def test_every_figure_of_a_summary_can_be_named_before_it_is_measured(
    labelled: Path, unlabelled: Path, tmp_path: Path
) -> None:
    for folder in (labelled, unlabelled):
        gallery = eb.data.load(str(folder), split="all")
        embedder = eb.Embedder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 8)))
        config = AuditConfig(eps=(0.1, 0.2), attacked=2, steps=1, k=3)
        _, summary = eb.audit.audit(config, gallery, embedder, out=tmp_path / folder.name)
        planned = prospect(config, gallery)
        assert set(planned["clean"]) == set(summary["clean"])
        names = [
            {
                threat["threat"]: (threat["metric"], {point["eps"]: set(point["figures"]) for point in threat["curve"]})
                for threat in told["threats"]
            }
            for told in (planned, summary)
        ]
        assert names[0] == names[1]
        assert {row["scenario"] for row in summary["skipped"] if " " not in row["scenario"]} <= {
            row["scenario"] for row in planned["skipped"]
        }


def test_the_same_command_goes_on_and_its_command_is_kept(audit, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audit("--out", "run")
    summary = eb.records.load_summary(Path("run"))
    assert summary["command"].startswith("embattle audit --data ")
    assert summary["command"].endswith("--out run")
    reproduce = {threat["threat"]: threat["reproduce"] for threat in summary["threats"]}
    assert reproduce["shift"].endswith("--only shift")
    assert reproduce["shift"].count("--only") == 1
    assert "--out" not in reproduce["shift"]
    monkeypatch.setattr(run, "attack_cell", None)  # nothing is left to compute
    again = audit("--out", "run")
    assert (again.code, again.out) == (first.code, first.out)
    assert "all 5 units were there" in again.err
    assert "there" not in first.err


def test_a_scenario_under_two_names_is_one(audit) -> None:
    assert audit("--out", "run", only="ca+,ca+.w1").code == 0
    assert audit("--out", "run", only="ca+.w1").code == 0
    (threat,) = eb.records.load_summary(Path("run"))["threats"]
    assert threat["curve"][1]["figures"]["rank"]["n"] == 4


def spoil(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """The cell after the first `after` ones raises."""
    calls = []

    def cell(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > after:
            raise error
        return attack_unit.attack_cell(*arguments)

    monkeypatch.setattr(run, "attack_cell", cell)


def test_an_interrupt_is_incomplete(audit) -> None:
    assert audit("--out", "whole").code == 0
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, 2, KeyboardInterrupt())
        said = audit("--out", "run")
    assert said.code == 3
    assert "interrupted during" in said.words
    assert "the same command goes on" in said.words
    assert "Traceback" not in said.err
    assert said.err.strip().endswith("Folder: run, with a report of what is done")
    assert "Unfinished: 3 of 5 units, no overall grade yet" in Path("run/report.html").read_text()
    assert len(LocalStore(Path("run")).done()) == 3
    resumed = audit("--out", "run")
    assert resumed.code == 0
    assert "resumed: 3 of 5 units were there, in run" in resumed.err
    assert units("run") == units("whole")


@pytest.mark.parametrize("after", [0, 2])
def test_sigterm_is_an_interrupt_with_its_own_exit_code(audit, after: int) -> None:
    def terminate(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > after:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            raise AssertionError("the signal was not noticed")
        return attack_unit.attack_cell(*arguments)

    calls: list[object] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "attack_cell", terminate)
        said = audit("--out", "run")
    assert said.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert "interrupted during" in said.words
    assert said.err.strip().endswith("Folder: run, with a report of what is done")
    assert f"Unfinished: {after + 1} of 5 units" in Path("run/report.html").read_text()
    assert audit("--out", "run").code == 0
    assert "nfinished" not in Path("run/report.html").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 3)])
def test_signals_outside_a_run(call, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    monkeypatch.setattr("embattle.cli.catalogue.find", lambda name: os.kill(os.getpid(), number))
    # Where the tests are a job in the background, the shell has had Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said = call("show", "apgd")
    finally:
        signal.signal(signal.SIGINT, before)
    assert said.code == code
    assert said.err.strip() == "embattle: interrupted; the same command goes on"


def test_a_bug_is_told_and_noted(audit) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, 1, RuntimeError("two and two is five"))
        said = audit("--out", "run")
    assert said.code == 70
    assert "Traceback" in said.err
    assert "two and two is five" in said.err
    assert "bug in Embattle" in said.words
    assert list(LocalStore(Path("run")).quarantined().values()) == ["RuntimeError: two and two is five"]
    assert audit("--out", "run").code == 0
    assert LocalStore(Path("run")).quarantined() == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_incomplete(audit, code: int) -> None:
    assert audit("--out", "whole").code == 0
    replace = os.replace

    def full(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if len(list(Path("run/units").glob("*.jsonl"))) == 2:
            raise OSError(code, os.strerror(code))
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embattle.records.atomic.os.replace", full)
        said = audit("--out", "run")
    assert said.code == 3
    assert os.strerror(code) in said.words
    assert "same command again" in said.words
    assert not Path("run/summary.json").exists()
    assert not [path for path in Path("run").rglob(".*.tmp")]
    assert audit("--out", "run").code == 0
    assert units("run") == units("whole")


def test_a_full_disk_before_anything_is_kept(audit, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("embattle.records.atomic.os.fsync", full)
    said = audit("--out", "run")
    assert said.code == 3
    assert "free some space" in said.words
    assert [path.name for path in Path("run").rglob("*") if path.is_file()] == []
