"""Kills a small audit over and over and continues it; run by test_killed_runs.py in an interpreter of its own.

python killed_run.py times|writes FOLDER SEED

Each start is a fork of this process, so that only the first one pays for importing torch. "times" kills ten starts at
random moments; "writes" has each start kill itself right before or after a random file is put into its place.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

import embattle as eb
from embattle.audit import AuditConfig, Trained, audit
from embattle.data import ImageSet
from embattle.records import atomic
from embattle.training import TrainConfig

KILLS = 10


@cache
def pictures() -> tuple[ImageSet, ImageSet]:
    """Training pictures and a gallery."""
    train, test = (eb.data.load("digits", split=split) for split in ("train", "test"))
    return train.take(range(120)), test.take(range(60))


def warm_up() -> None:
    """Everything slow that forks can share; no backward pass, which torch forbids before a fork."""
    pictures()
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()


def job(out: Path) -> None:
    """An audit of a model that it trains first: 18 units."""
    train, test = pictures()
    network = {"width": 8, "dimension": 16}
    model = Trained(
        config=TrainConfig(network="small", network_args=network, epochs=3, batch_size=40, threads=1),
        pictures=train,
    )
    config = AuditConfig(
        scenarios=("ca+.w1", "sp-qa-.m1"), eps=(0.2,), steps=2, attacked=16, shard=4, tile=4, k=5, findings=2
    )
    audit(config, test, model, command="embattle audit", out=out)


def start(work: Callable[[], None]) -> int:
    """Runs `work` in a fork and gives its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finished(child: int) -> bool:
    """Waits for a fork; False when it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "a start failed"
    return True


def state(out: Path) -> str:
    """How far a killed run had come."""
    units = len(list((out / "units").glob("*.jsonl")))
    if units == 0:
        return "training" if (out / "model.state.safetensors").exists() else "starting"
    return f"{units} units"


def killed_at_times(out: Path, draw: random.Random, longest: float) -> list[str]:
    """Ten starts killed after at most `longest` seconds, or fewer when one of them came to the end."""
    seen: list[str] = []
    while len(seen) < KILLS:
        child = start(lambda: job(out))
        time.sleep(draw.uniform(0.02, longest))
        os.kill(child, signal.SIGKILL)
        if finished(child):
            break
        seen.append(state(out))
    return seen


def killed_at_writes(out: Path, draw: random.Random) -> list[str]:
    """Starts killed at a write: the first ones early, in training; the later ones late enough to finish some units."""
    seen = []
    for number in range(2 * KILLS):
        count, before = draw.randrange(1, 6 if number < KILLS else 60), draw.random() < 0.5

        def work(count: int = count, before: bool = before) -> None:
            kill_at(count, before)
            job(out)

        if finished(start(work)):
            break
        seen.append(state(out))
    return seen


def kill_at(count: int, before: bool) -> None:
    """Makes the `count`-th file that is put into its place the last thing this process does."""
    replace, left = os.replace, [count]

    def deadly(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        left[0] -= 1
        if left[0] == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    atomic.os.replace = deadly  # type: ignore[attr-defined]


def main(how: str, folder: Path, seed: int) -> None:
    """Prints how far the killed starts had come, as JSON; leaves the folders "whole" and "killed"."""
    torch.set_num_threads(1)
    warm_up()
    draw = random.Random(seed)
    began = time.perf_counter()
    assert finished(start(lambda: job(folder / "whole")))
    seconds = time.perf_counter() - began
    out = folder / "killed"
    seen = []
    if how == "writes":
        seen = killed_at_writes(out, draw)
    longest = 0.25 * seconds
    while len(seen) < KILLS:
        shutil.rmtree(out, ignore_errors=True)
        seen = killed_at_times(out, draw, longest)
        longest *= 0.85
    assert finished(start(lambda: job(out)))
    print(json.dumps({"seen": seen, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
