"""A run that is killed at any moment and started again ends with the same bytes as one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from embattle.errors import InputError, RunIncomplete, RunMismatch
from embattle.training import epochs_done, train
from embattle.training.state import state_path

CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import stripes
from embattle.training import TrainConfig, train
settings = {"network": "small", "network_args": {"size": 16, "width": 4, "dimension": 8}, "epochs": 3}
config = TrainConfig.parse(settings | {"batch_size": 25, "threads": 2, "lr": 3e-3})
def progress(step):
    print("batch", flush=True)
    time.sleep(0.01)
train(config, stripes(), Path(sys.argv[2]), progress=progress)
"""


class Stop(Exception):
    pass


def stopping(epoch, kind=Stop):
    def progress(step):
        if step.epoch == epoch:
            raise kind

    return progress


@pytest.mark.parametrize("batch", [1, 3, 4, 8, 9])
def test_a_run_stopped_at_any_batch_goes_on_bit_equal(batch, pictures, small, tmp_path):
    def progress(step):
        if (step.epoch - 1) * step.batches + step.batch == batch:
            raise Stop

    whole = train(small(), pictures, tmp_path / "whole.safetensors")
    out = tmp_path / "m.safetensors"
    with pytest.raises(Stop):
        train(small(), pictures, out, progress=progress)
    assert not out.exists()
    torch.rand(5)
    resumed = train(small(), pictures, out)
    # The progress call comes inside the epoch: the third batch stops epoch 1 before it is durable.
    assert resumed.resumed_after == (batch - 1) // 3
    assert out.read_bytes() == whole.path.read_bytes()
    assert [(row["epoch"], row["loss"]) for row in resumed.history] == [(r["epoch"], r["loss"]) for r in whole.history]
    assert not state_path(out).exists()


def test_a_resumed_run_first_tells_where_it_goes_on(pictures, small, tmp_path):
    out, first, seen = tmp_path / "m.safetensors", [], []

    def stop(step):
        first.append(step)
        if step.epoch == 3:
            raise Stop

    with pytest.raises(Stop):
        train(small(), pictures, out, progress=stop)
    assert not any(step.resumed for step in first)
    assert epochs_done(out) == 2
    train(small(), pictures, out, progress=seen.append)
    assert seen[0] == replace(first[5], resumed=True)  # the last batch of the second epoch
    assert seen[0].share == pytest.approx(2 / 3)
    assert [(step.epoch, step.batch, step.resumed) for step in seen[1:]] == [(3, n, False) for n in (1, 2, 3)]
    assert seen[-1].share == 1
    assert epochs_done(out) == 0  # nothing is left to go on with


def test_a_state_that_cannot_be_read_says_nothing(tmp_path):
    state_path(tmp_path / "m.safetensors").write_bytes(b"no state")
    assert epochs_done(tmp_path / "m.safetensors") == 0


class Drawing(nn.Module):
    """A network with what a plain one lacks: statistics of its batches, and draws of its own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(196, 8)
        )

    def forward(self, x):
        return self.body(x)


def test_batch_statistics_and_dropout_go_on_bit_equal(pictures, small, tmp_path, monkeypatch):
    monkeypatch.setattr("embattle.networks.build", lambda name, **arguments: Drawing())
    whole = train(small(), pictures, tmp_path / "whole.safetensors").path.read_bytes()
    out = tmp_path / "m.safetensors"
    for last in (2, 3):
        with pytest.raises(Stop):
            train(small(), pictures, out, progress=stopping(last))
    assert train(small(), pictures, out).path.read_bytes() == whole


def test_sigkill_at_random_moments(pictures, small, tmp_path):
    whole = train(small(), pictures, tmp_path / "whole.safetensors").path.read_bytes()
    out, kills = tmp_path / "m.safetensors", 0
    here = os.path.dirname(__file__)
    for wanted in (4, 5, 100):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, here, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(wanted):
            if not child.stdout.readline():
                break
        else:
            time.sleep(0.003 * wanted)
            child.send_signal(signal.SIGKILL)
        _, errors = child.communicate(timeout=60)
        kills += child.returncode == -signal.SIGKILL
        assert child.returncode in (0, -signal.SIGKILL), errors
    assert kills == 2
    assert out.read_bytes() == whole


def test_an_interrupt_is_an_incomplete_run(pictures, small, tmp_path):
    with pytest.raises(RunIncomplete, match="the same command goes on") as caught:
        train(small(), pictures, tmp_path / "m.safetensors", progress=stopping(2, KeyboardInterrupt))
    assert caught.value.exit_code == 3
    assert train(small(), pictures, tmp_path / "m.safetensors").resumed_after == 1


def begun(config, pictures, out):
    with pytest.raises(Stop):
        train(config, pictures, out, progress=stopping(2))
    return state_path(out)


def test_the_state_of_another_run_is_refused_and_kept(pictures, make_stripes, small, tmp_path):
    out = tmp_path / "m.safetensors"
    state = begun(small(), pictures, out)
    before = state.read_bytes(), (tmp_path / "m.history.jsonl").read_bytes()
    for config, data in ((small(lr=1e-4), pictures), (small(), make_stripes(seed=4))):
        with pytest.raises(RunMismatch, match="other settings or other data"):
            train(config, data, out)
    assert (state.read_bytes(), (tmp_path / "m.history.jsonl").read_bytes()) == before
    fresh = train(small(lr=1e-4), pictures, out, resume=False)
    assert fresh.resumed_after == 0
    assert not state.exists()


def test_beginning_again_over_a_finished_run_can_itself_be_resumed(pictures, small, tmp_path):
    out = tmp_path / "m.safetensors"
    train(small(epochs=1), pictures, out)

    with pytest.raises(Stop):
        train(small(), pictures, out, resume=False, progress=stopping(2))
    assert out.exists()
    assert train(small(), pictures, out).resumed_after == 1


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "foreign"])
def test_a_damaged_state_is_a_sentence(damage, pictures, small, tmp_path):
    out = tmp_path / "m.safetensors"
    state = begun(small(), pictures, out)
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:-100])
    elif damage == "text":
        state.write_text("not a state, but long enough to have a header")
    elif damage == "empty":
        state.write_bytes(b"")
    else:
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, state)
    with pytest.raises(InputError, match=r"no readable training state.*--no-resume"):
        train(small(), pictures, out)
    assert train(small(), pictures, out, resume=False).path.exists()
