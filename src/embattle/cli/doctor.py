"""`embattle doctor`: is this machine, and is this model, fit for an audit?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from embattle.cli import flags
from embattle.cli.console import stdout
from embattle.errors import ConfigError

if TYPE_CHECKING:
    from embattle.audit.checkup import Check
    from embattle.data import ImageSet
    from embattle.embedders import Embedder

_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


def doctor(
    data: flags.Data = "digits",
    model: flags.Model = None,
    data_root: flags.DataRoot = None,
    similarity: flags.SimilarityName = None,
    size: flags.Size = None,
    channels: flags.Channels = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    on_error: flags.OnError = "raise",
    threads: flags.Threads = None,
    device: flags.Device = None,
) -> None:
    """Check this machine, and a model, before an audit.

    Every line is ok, warn or FAIL, with what to do. Without --model the small network that stands in for yours is
    checked, untrained. Exit code 1 if a line is FAIL.
    """
    described = flags.preprocessing(similarity=similarity, size=size, channels=channels, mean=mean, std=std)
    if model is None and described:
        raise ConfigError(f"{', '.join('--' + name for name in described)} describes a model; give one with --model")
    from embattle.audit.checkup import examine
    from embattle.cli import auditing
    from embattle.cli.machine import examine_machine
    from embattle.runs import describe_environment

    auditing.use_threads(threads)
    place = None if device is None else auditing.usable_device(device)
    checks = list(_print("Machine", examine_machine(describe_environment("embattle doctor"), data_root)))
    embedder, pictures = _loaded(data, model, described, data_root, on_error)
    if place is not None:
        embedder.module.to(place)
    checks += _print("Pictures", _on_pictures(pictures, model))
    few = pictures.take(range(0, len(pictures), max(1, len(pictures) // 16)))
    checks += _print("Model", examine(embedder, few.images))
    failed = sum(check.status == "FAIL" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    typer.echo(f"\n{len(checks)} checks: {failed} FAIL, {warned} warn")
    if failed:
        raise typer.Exit(1)


def _loaded(
    data: str, model: str | None, described: Mapping[str, Any], root: Path | None, on_error: flags.WhenDamaged
) -> tuple[Embedder, ImageSet]:
    from embattle import embedders
    from embattle.cli import auditing

    if model is None:
        return auditing.untrained_stand_in(data, data_root=root, on_error=on_error)
    embedder = embedders.load(model, **described)
    return embedder, auditing.load_gallery(data, embedder, data_root=root, on_error=on_error)


def _on_pictures(pictures: ImageSet, model: str | None) -> Iterator[Check]:
    from embattle.audit.checkup import Check

    shape = "x".join(map(str, pictures.images.shape[1:]))
    finding = f"{pictures.name}: {len(pictures):,} of {shape}"
    if pictures.labelled:
        yield Check(name="gallery", status="ok", finding=f"{finding}, {len(pictures.classes or ())} classes")
    else:
        what = "scenarios that need classes" if model else "everything: no stand-in model can be trained, give --model"
        advice = f"an audit will leave out {what}; one sub-folder per class gives labels"
        yield Check(name="gallery", status="warn", finding=f"{finding}, no labels", advice=advice)
    for note in pictures.notes:
        yield Check(name="note", status="warn", finding=note)


def _print(title: str, checks: Iterable[Check]) -> Iterator[Check]:
    """Passes the checks on, each printed as soon as it is known."""
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    console.print(Text(f"\n{title}" if title != "Machine" else title, "bold"))
    for check in checks:
        row = Table.grid(padding=(0, 1))
        row.add_column(width=4)
        row.add_column(width=14)
        row.add_column(overflow="fold")
        told = f"{check.finding}\n→ {check.advice}" if check.advice else check.finding
        row.add_row(Text(check.status, _COLOURS[check.status]), Text(check.name), Text(told))
        console.print(row)
        yield check
