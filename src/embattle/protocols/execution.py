"""From a protocol to its result: train a model for each seed, attack, measure, and lay the paper's figures beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from embattle import data
from embattle.defenses import HardenConfig
from embattle.protocols.cells import Cell, Role, attack_names, attack_of, measure_cell, shares
from embattle.protocols.perturbation_cells import LEARNT_FROM
from embattle.protocols.protocol import Column, Protocol, Scale, SignSteps
from embattle.protocols.stand_in import on_data_at_hand
from embattle.protocols.study import Study
from embattle.records import LocalStore, Published, Unit, build_reproduction, write_json_atomic
from embattle.records.reproduction import PAPER_FILE
from embattle.report import write_reproduction
from embattle.runs import Output, Progress, RunFolder, Task, Tick, execute, kind_of_device, open_run
from embattle.training import Progress as TrainProgress
from embattle.training import going_on, read_history

# Effort of a training picture and of a step on an attacked one, in forward passes; only the progress bar depends on it.
_TRAIN_EFFORT, _STEP_EFFORT, _FREE_EFFORT = 3.0, 3.0, 120.0


def reproduce(
    protocol: Protocol, scale: str = "cpu", *, attacked: int | None = None, seeds: tuple[int, ...] | None = None,
    data_root: Path | None = None, models: Path = Path("checkpoints"), out: Path | None = None,
    device: torch.device | str = "cpu", command: str = "embattle reproduce", progress: Progress | None = None,
    begun: Callable[[RunFolder], None] | None = None, tell: Callable[[str], None] | None = None,
) -> tuple[RunFolder, dict[str, Any]]:  # fmt: skip
    """Runs a protocol, or goes on with one, and writes result.json, result.md and result.csv.

    Args:
        protocol: what to reproduce.
        scale: "smoke", "cpu" or "paper".
        attacked: pictures attacked for each seed, instead of the scale's number.
        seeds: instead of the scale's.
        data_root: folder of the named data sets.
        models: folder of the trained models, shared by all protocols; a model that is there is not trained again.
        out: the run folder; None: runs/<date>-<protocol>-<hash8>, found again by the configuration's hash.
        device: where models are trained and attacked.
        command: the command line, for the result.
        progress: told before every unit.
        begun: told the run folder before the first unit, with how many units an earlier start has finished.
        tell: told in a sentence, before anything runs, what is done otherwise than asked, which the result holds as
            well; and where the training of a model goes on that an earlier start has begun.

    Returns:
        The run folder and the result.

    Raises:
        ConfigError: no such scale.
        DataError: the data set cannot be had.
        RunMismatch: `out` or a model belongs to another configuration.
        RunIncomplete: interrupted; the same call goes on.
    """
    say = tell or (lambda sentence: None)
    protocol, notes = on_data_at_hand(protocol, data_root)
    wanted = protocol.at(scale, attacked=attacked, seeds=seeds)
    pictures, gallery = (
        data.load(protocol.data, split=split, root=data_root, size=wanted.size) for split in ("train", "test")
    )
    pictures, gallery = pictures.some(wanted.training_pictures), gallery.some(wanted.gallery)
    if wanted.attacked > len(gallery):
        notes.append(
            f"attacked = {wanted.attacked:,} is more than the {len(gallery):,} pictures searched: all of them are."
        )
        wanted = replace(wanted, attacked=len(gallery))
    for note in notes:
        say(note)
    place: dict[str, LocalStore] = {}
    study = Study(
        protocol=protocol, scale=wanted, pictures=pictures, gallery=gallery, models=models, device=torch.device(device),
        folder=lambda: place["run"],
    )  # fmt: skip
    tasks = [task for seed in wanted.seeds for task in _tasks(study, seed, say)]
    kind = kind_of_device(study.device)
    run = open_run(protocol.name, study.hashed, [task.unit for task in tasks], command=command, out=out, device=kind)
    place["run"] = run.store
    # Outside the hash: a corrected misprint of the paper's figures costs no attack.
    write_json_atomic(run.path / PAPER_FILE, _paper(protocol, scale, wanted, notes))
    if begun is not None:
        begun(run)
    execute(tasks, run.store, progress)
    result = build_reproduction(run.path)
    write_reproduction(run.path, result)
    return run, result


def _paper(protocol: Protocol, name: str, scale: Scale, notes: list[str]) -> dict[str, Any]:
    """What a result says of itself before the figures, and the paper's figures."""
    published = [
        Published(
            column=column.name, metric=column.metric, unit=column.unit, rises=column.rises, width=column.width,
            tolerance=column.tolerance, eps=eps, value=protocol.published.get((column.name, eps)), attack=column.attack,
            scenario=column.scenario, model=column.judged_on or protocol.first,
            defended="defense" in protocol.models[column.judged_on or protocol.first].training,
        )
        for column in protocol.columns
        for eps in (0.0, *protocol.eps)
    ]  # fmt: skip
    described = {
        "protocol": protocol.name, "title": protocol.title, "paper": protocol.paper,
        "recall": {name: model.recall for name, model in protocol.models.items()}, "scores": dict(protocol.scores),
        "data": protocol.data, "network": ", ".join(dict.fromkeys(model.network for model in protocol.models.values())),
        "differs": list(protocol.differs), "scale": name,
        "judged": scale.judged, "attacked": scale.attacked, "epochs": scale.epochs, "seeds": list(scale.seeds),
        "training_pictures": scale.training_pictures, "gallery": scale.gallery, "notes": notes,
        **({} if scale.size is None else {"size": scale.size}),
    }  # fmt: skip
    return {"described": described, "published": [asdict(each) for each in published]}


def _tasks(study: Study, seed: int, tell: Callable[[str], None]) -> list[Task]:
    """All units of a seed, in order: its models, then column by column the clean system, the bound, and ε by ε."""
    training: dict[str, Task] = {}
    for name in study.protocol.models:
        start = study.protocol.models[name].start
        training[name] = _training_task(study, name, seed, tell, needs=(training[start].unit.id,) if start else ())
    tasks = list(training.values())
    attacks: dict[str, Column] = {}
    for column in study.protocol.columns:
        attacks.setdefault(column.attack, column)  # columns of several metrics of one attack share it
    for column in attacks.values():
        needs = tuple(training[name].unit.id for name in dict.fromkeys(study.crossing(column)))
        for role, eps in _roles(study.protocol, column):
            tasks.append(_task(study, column, role, eps, seed, needs=needs))
    return tasks


def _training_task(
    study: Study, name: str, seed: int, tell: Callable[[str], None], *, needs: tuple[str, ...]
) -> Task:  # fmt: skip
    config = study.training(name, seed)
    # The model's name tells two trainings of one kind apart, where only their seeds are shifted.
    params = {"train": study.identity(name, seed), "pictures": study.pictures.fingerprint, "model": name}
    title = f"seed {seed}: training{'' if len(study.protocol.models) == 1 else f' {name}'}"
    steps = config.steps * _STEP_EFFORT if isinstance(config, HardenConfig) else 0.0
    return Task(
        unit=Unit(kind="train", params=params, samples=(), needs=needs),
        work=lambda tick: _train(study, name, seed, tick, lambda sentence: tell(f"{title}: {sentence}")),
        title=title,
        weight=(_TRAIN_EFFORT + steps) * config.epochs * len(study.pictures),
    )


def _roles(protocol: Protocol, column: Column) -> list[tuple[Role, float]]:
    attacks: tuple[Role, ...] = ("paper", "adaptive") if protocol.adaptive else ("paper",)
    bound: list[tuple[Role, float]] = [("free", 0.0)] if column.width > 1 else []
    return [("clean", 0.0), *bound, *((role, eps) for eps in protocol.eps for role in attacks)]


def _task(study: Study, column: Column, role: Role, eps: float, seed: int, needs: tuple[str, ...]) -> Task:
    rule = study.protocol.steps
    cell = Cell(column=column, eps=eps, role=role, seed=seed, samples=study.samples(column, seed), steps=rule)
    # Other seeds or columns of the run do not change this cell, so they are not in its identity.
    params = {
        "numerics": study.numerics, "gallery": study.gallery.fingerprint, "column": column.attack, "role": role,
        "eps": eps, "seed": seed, "attack": _attack_name(role, eps, column, rule),
    }  # fmt: skip
    shared = shares(column)
    without_steps = {"clean": 1.0, "free": _FREE_EFFORT}
    effort = without_steps.get(role) or _STEP_EFFORT * attack_of(role, eps, shared=shared, steps=rule).steps
    pictures = int(LEARNT_FROM * len(study.gallery)) if shared else 1
    source, judge = study.crossing(column)
    return Task(
        unit=Unit(kind="attack", params=params, samples=cell.samples, needs=needs),
        work=lambda tick: measure_cell(study.subject(judge, seed), cell, study.subject(source, seed)),
        title=f"seed {seed}: {column.attack} {role} ε {eps:g}" if eps else f"seed {seed}: {column.attack} {role}",
        weight=effort * len(cell.samples) * pictures,
    )


def _attack_name(role: Role, eps: float, column: Column, rule: SignSteps | None) -> str:
    if role == "clean":
        return ""
    names = attack_names((eps,), (column,), rule)
    if role == "free":
        return names["free"]
    return names[f"{'universal ' if shares(column) else ''}{role} {eps:g}"]


def _train(study: Study, name: str, seed: int, tick: Tick, tell: Callable[[str], None]) -> Output:
    def show(progress: TrainProgress) -> None:
        if progress.resumed:
            tell(going_on(progress.epoch, progress.epochs))
        tick(progress.share)

    result = study.train(name, seed, progress=show)
    assert result.recall is not None
    row = {
        "row": "model",
        "seed": seed,
        "model": result.embedder.fingerprint,
        "recall": result.recall.to_json(),
        "name": name,
    }
    # The checkpoint's own history has no times, so that equal trainings give equal files.
    seconds = [epoch["seconds"] for epoch in read_history(result.path)]
    cost = {"epochs": len(seconds), "epoch_seconds": statistics.median(seconds)} if seconds else {}
    return Output(rows=[row], cost=cost)
