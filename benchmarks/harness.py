"""What every benchmark shares: sides that alternate in one process, medians and ratios, and a record of the machine.

A ratio is the median of the rounds' own ratios: load that comes and goes on a shared machine hits both sides of a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from embattle.allocator import keep_freed_memory
from embattle.records import write_json_atomic
from embattle.runs import describe_environment
from embattle.training import Progress

Side = Callable[[], object]


def arguments(description: str | None, *, repeats: int = 9, **more: int) -> argparse.Namespace:
    """Parses --repeats, --threads, --seed, --out and further whole-number flags; sets threads and the global seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds; every side runs once in each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write besides printing")
    for name, value in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    given = parser.parse_args()
    # As the command line does.
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    return given


def alternate(sides: Mapping[str, Side], repeats: int, *, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every side in every round; the order of the sides turns round with each round."""
    return alternate_stopwatches({name: _watched(side) for name, side in sides.items()}, repeats, warm_up=warm_up)


def alternate_stopwatches(
    sides: Mapping[str, Callable[[], float]], repeats: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """As `alternate`, with sides that measure themselves and return the seconds that count."""
    for _ in range(warm_up):
        for side in sides.values():
            side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(repeats):
        for name in order:
            seconds[name].append(sides[name]())
        order.reverse()
    return seconds


def _watched(side: Side) -> Callable[[], float]:
    def watched() -> float:
        started = time.perf_counter()
        side()
        return time.perf_counter() - started

    return watched


def seconds_of_a_batch(run: Callable[[Callable[[Progress], None]], object]) -> float:
    """Mean seconds between the ends of two batches of a training: without its set-up and without the files it writes."""
    ends: list[float] = []
    run(lambda progress: ends.append(time.perf_counter()))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median seconds of every side."""
    return {name: round(statistics.median(values), 6) for name, values in seconds.items()}


def ratio(seconds: Mapping[str, Sequence[float]], side: str, over: str) -> float:
    """Median over the rounds of one side's seconds divided by the other's."""
    return round(statistics.median(a / b for a, b in zip(seconds[side], seconds[over], strict=True)), 4)


def reset_peak() -> int:
    """Forgets the peak so far, where the system can (Linux); returns the memory resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The largest resident memory since `reset_peak`, or of the whole process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def publish(name: str, what: str, given: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Prints the record of one benchmark and writes it to --out."""
    settings = {key: value for key, value in vars(given).items() if key != "out"}
    record = {
        "benchmark": name, "what": what, "settings": settings, **results,
        "environment": describe_environment(f"benchmarks/{Path(sys.argv[0]).name}"),
    }  # fmt: skip
    print(json.dumps(record, indent=1))
    if given.out is not None:
        write_json_atomic(given.out, record)
