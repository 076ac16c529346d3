"""How a run is followed where stderr is a log, and what it says of units that were there."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch

import embattle as eb
from embattle.audit import AuditConfig
from embattle.cli import auditing, progress
from embattle.cli.progress import PlainLines

LINE = re.compile(r" *\d+ %  \d+:\d\d:\d\d(, \d+:\d\d:\d\d left)?  \S.*")


def test_a_log_gets_plain_lines(audit) -> None:
    said = audit("--out", "run")
    lines = said.err.splitlines()
    assert len(lines) >= 4
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert lines[0].strip().startswith("0 %")
    assert lines[-1].startswith("100 %")
    assert lines[-1].endswith("done")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", said.err)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_for_every_tenth_and_for_every_minute(clock: list[float]) -> None:
    stream = io.StringIO()
    show = PlainLines(stream)
    for done in range(1000):
        clock[0] += 1.0
        show(f"unit {done}", done, 1000, None)
    show("done", 1000, 1000, 0.0)
    lines = stream.getvalue().splitlines()
    assert 1000 // 60 < len(lines) <= 1000 // 60 + 11
    stream = io.StringIO()
    show = PlainLines(stream)
    for done in range(1000):
        clock[0] += 0.001
        show(f"unit {done}", done, 1000, 75.0)
    show("done", 1000, 1000, 0.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[3] == " 30 %  0:00:00, 0:01:15 left  unit 300"


def test_more_pictures_than_there_are(audit) -> None:
    said = audit("-n", 200, "--out", "run")
    assert said.code == 0
    (note,) = [note for note in eb.records.load_summary(Path("run"))["notes"] if "200" in note]
    assert note == "attacked = 200 is more than the 24 pictures of shop: all of them are."
    assert said.err.splitlines()[0] == note
    assert "200" not in audit("-n", 24, "--out", "all").err


def test_training_in_a_log(call, labelled: Path) -> None:
    said = call(
        "train", "--data", labelled, "--network", "small", "--epochs", 2, "--batch-size", 24, "--threads", 1, "--size", 32,
        "--out", "m.safetensors",
    )  # fmt: skip
    assert said.code == 0, said.words
    lines = said.err.splitlines()
    assert lines[-1].startswith("100 %")
    assert "epoch 2/2, loss 0." in lines[-1]
    assert all(LINE.fullmatch(line) for line in lines), lines


def test_the_device_is_hashed_and_the_model_is_moved(audit, call, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit("--out", "run").code == 0
    assert json.loads(Path("run/config.json").read_text())["config"]["numerics"]["device"] == "cpu"
    assert "all 5 units were there" in audit("--out", "run", "--device", "cpu").err
    monkeypatch.setattr(auditing, "usable_device", lambda name: torch.device("meta"))
    _, subject = auditing.load_subject(
        str(labelled), "module:little_models:good", AuditConfig(), data_root=None, on_error="raise", threads=1,
        device="anything", preprocessing={},
    )  # fmt: skip
    assert subject.device.type == "meta"
