"""A step of defensive training with and without `embattle.allocator`: seconds, and the most memory the process held.

``python benchmarks/freed_memory.py --threads 2 --out results/bench-freed-memory.json``

The setting cannot be taken back, so every measurement is a process of its own; the sides alternate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import torch

from embattle import data, networks
from embattle.allocator import keep_freed_memory
from embattle.defenses import HardenConfig, harden
from embattle.embedders import Embedder

SIDES = ("kept", "given back")
BATCH = 128


def measured(side: str, threads: int, batches: int, seed: int) -> dict[str, float]:
    """Seconds of a step, and the peak of the process in bytes; in a process that has done nothing else."""
    if side == "kept" and not keep_freed_memory():
        raise SystemExit("the C library cannot be asked to keep memory, or its own settings are in the environment")
    torch.set_num_threads(threads)
    pictures = data.load("mnist", split="train").some((batches + 1) * BATCH)
    start = Embedder(networks.build("c2f1"), channels=1, size=(28, 28))
    config = HardenConfig.parse(
        {"defense": "est", "eps": 0.3, "epochs": 1, "batch_size": BATCH, "batch_norm": "train", "seed": seed,
         "threads": threads}
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "est.safetensors"
        step = harness.seconds_of_a_batch(lambda show: harden(config, start, pictures, out, resume=False, progress=show))
    return {"seconds": step, "peak_bytes": harness.peak_bytes()}


def main() -> None:
    """EST on MNIST with C2F1."""
    if len(sys.argv) == 6 and sys.argv[1] == "--one":
        print(json.dumps(measured(sys.argv[2], *map(int, sys.argv[3:]))))
        return
    given = harness.arguments(__doc__, repeats=7, batches=6)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(given.repeats):
        for side in SIDES if number % 2 else SIDES[::-1]:
            command = [sys.executable, __file__, "--one", side, *map(str, (given.threads, given.batches, given.seed))]
            found[side].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    seconds = {side: [one["seconds"] for one in runs] for side, runs in found.items()}
    peaks = {side: [one["peak_bytes"] / 2**20 for one in runs] for side, runs in found.items()}
    harness.publish(
        "freed-memory", "a step of defensive training with freed memory kept and given back", given,
        {
            "network": "c2f1", "data": "mnist", "defense": "est", "batch": BATCH,
            "median_seconds": harness.medians(seconds), "ratio": harness.ratio(seconds, *SIDES),
            "median_peak_megabytes": {side: round(value) for side, value in harness.medians(peaks).items()},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
