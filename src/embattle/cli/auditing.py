"""What `embattle audit` does once its flags are read: load, run with a progress bar, write the report, check the gates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from embattle import data as datasets
from embattle import embedders, networks, rng
from embattle.audit import AuditConfig, Trained, audit
from embattle.data import ImageSet
from embattle.embedders import Embedder
from embattle.errors import ConfigError, DataError
from embattle.records import Gate, write_json_atomic
from embattle.report import terminal_table, write_report
from embattle.runs import Progress
from embattle.training import TrainConfig

# The stand-in model is trained in under a minute on two cores: small pictures, and no more of them than that allows.
_STAND_IN = {"network": "small", "batch_size": 200}
_MOST_TRAINING_PICTURES = 6000
# Pixels that two cores train on in well under a minute, all epochs together.
_TRAINING_PIXELS, _FEWEST_EPOCHS, _MOST_EPOCHS = 50e6, 3, 20


def load_subject(
    data: str, model: str | None, config: AuditConfig, *, data_root: Path | None, on_error: Literal["raise", "skip"],
    threads: int | None, preprocessing: Mapping[str, Any],
) -> tuple[ImageSet, Embedder | Trained]:  # fmt: skip
    """The gallery and the model, or the plan to train one.

    Raises:
        ConfigError: preprocessing without a model that takes it, or an impossible number of threads.
        DataError: pictures without labels and no model.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, not {threads}")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if model is not None:
        embedder = embedders.load(model, **preprocessing)
        size = embedder.size[0] if embedder.size is not None and data not in datasets.DATASETS else None
        gallery = datasets.load(
            data, split="test" if data in datasets.DATASETS else "all", root=data_root, channels=embedder.channels,
            size=size, on_error=on_error,
        )  # fmt: skip
        return gallery, embedder
    if preprocessing:
        raise ConfigError(f"{', '.join('--' + name for name in preprocessing)} describes a model; give one with --model")
    return _with_stand_in(data, config, data_root, on_error)


def _with_stand_in(
    data: str, config: AuditConfig, root: Path | None, on_error: Literal["raise", "skip"]
) -> tuple[ImageSet, Trained]:
    side = 32 if data in datasets.DATASETS else 64
    train = datasets.load(data, split="train", root=root, size=side, on_error=on_error)
    test = datasets.load(data, split="test", root=root, size=side, on_error=on_error)
    if not train.labelled:
        raise DataError(
            f"{train.name} has no labels, so no stand-in model can be trained on it; give yours with --model "
            f"(checkpoint:PATH, module:package.module:factory or hf:PATH), or one sub-folder per class"
        )
    if len(train) > _MOST_TRAINING_PICTURES:
        order = rng.generator(config.seed, "stand-in", train.name).permutation(len(train))
        train = train.take(sorted(order[:_MOST_TRAINING_PICTURES].tolist()))
    fitting = networks.arguments_for("small", train.images.shape[1], train.images.shape[2])
    threads = torch.get_num_threads()
    affordable = int(_TRAINING_PIXELS / (len(train) * side**2))
    epochs = min(max(affordable, _FEWEST_EPOCHS), _MOST_EPOCHS)
    settings = TrainConfig.parse(
        {**_STAND_IN, "epochs": epochs, "network_args": fitting, "seed": config.seed, "threads": threads}
    )
    return test, Trained(config=settings, pictures=train)


def run_audit(
    config: AuditConfig, gallery: ImageSet, model: Embedder | Trained, gates: Sequence[Gate], *, command: str,
    out: Path | None,
) -> bool:  # fmt: skip
    """Runs, writes summary.json and report.html, prints the table; False when a gate does not hold."""
    console = Console(stderr=True)
    with _bar(console) as progress:
        run, summary = audit(config, gallery, model, command=command, out=out, progress=progress)
    results = [gate.check(summary) for gate in gates]
    summary["gates"] = [result.to_json() for result in results]
    write_json_atomic(run.path / "summary.json", summary)
    report = write_report(run.path)
    printer = Console()
    printer.print(terminal_table(summary))
    for result in results:
        printer.print(f"{'pass' if result.passed else 'FAIL'}  {result.expression}  {result.why}", markup=False)
    printer.print(f"report  {report}", markup=False, soft_wrap=True)
    return all(result.passed for result in results)


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("loading", total=None)

        def show(title: str, done: float, total: float) -> None:
            bar.update(task, description=title, completed=done, total=total)

        yield show
