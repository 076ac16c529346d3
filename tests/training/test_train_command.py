"""`embattle train` as a user runs it."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from embattle.cli.app import run
from embattle.cli.train import _bar
from embattle.training import Progress


def arguments(out, *more):
    return [
        "train",
        "--network",
        "small",
        "--batch-size",
        "200",
        "--epochs",
        "1",
        "--threads",
        "2",
        "--out",
        str(out),
        *more,
    ]


def test_trains_reports_and_goes_on(tmp_path, capsys):
    out = tmp_path / "m.safetensors"
    assert run(arguments(out, "--network-arg", "width=8", "--tensorboard", str(tmp_path / "tb"))) == 0
    said = capsys.readouterr().out
    assert f"checkpoint  {out}" in said
    assert "on digits/test, leave-one-out" in said
    assert "(n=500)" in said
    assert list((tmp_path / "tb").iterdir())
    assert run(arguments(out, "--network-arg", "width=8")) == 0
    assert "already trained" in capsys.readouterr().out
    assert run(arguments(out, "--network-arg", "width=8", "--seed", "1")) == 2
    assert "--no-resume" in capsys.readouterr().err
    assert run(arguments(out, "--network-arg", "width=8", "--seed", "1", "--no-resume")) == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_a_resumed_training_says_where_it_goes_on_and_starts_there(terminal, capsys, monkeypatch):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "80")
    after = Progress(epoch=2, epochs=3, batch=5, batches=5, loss=0.5, resumed=True)
    with _bar() as show:
        show(after)
        show(replace(after, epoch=3, batch=1, resumed=False))
    told = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert told.count("going on after epoch 2 of 3") == 1
    begun = told.partition("going on after epoch 2 of 3")[2]
    assert ("10/15" if terminal else " 67 %") in begun
    assert (" 0/15" if terminal else "  0 %") not in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--network", "c2f3"], "no network is called 'c2f3'"),
        (["--network-arg", "width"], "write NAME=VALUE"),
        (["--network-arg", "depth=3"], "has no argument 'depth'"),
        (["--epochs", "0"], "'epochs' cannot be 0"),
        (["--loss", "hinge"], "no loss is called 'hinge'"),
        (["--data", "nothing-here"], "no data set and no folder"),
        (["--learning-rate", "1"], "No such option"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(more, said, tmp_path, capsys):
    assert run(arguments(tmp_path / "m.safetensors", *more)) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch():
    code = (
        "import sys; from embattle.cli.app import run; assert run(['train', '--help']) == 0; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "0.2 cosine" in done.stdout
    assert done.stdout.strip().endswith("False")
