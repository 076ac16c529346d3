"""From a protocol to its result: train a model for each seed, attack, measure, and lay the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from embattle import data, networks, rng
from embattle.data import ImageSet
from embattle.defenses import HardenConfig, harden
from embattle.embedders import load_checkpoint
from embattle.errors import RunMismatch
from embattle.protocols.cells import Cell, Role, attack_names, attack_of, chosen, measure_cell, shares
from embattle.protocols.perturbation_cells import LEARNT_FROM
from embattle.protocols.protocol import Column, Protocol, Scale
from embattle.protocols.stand_in import on_data_at_hand
from embattle.records import LocalStore, Published, Unit, build_reproduction, write_json_atomic
from embattle.records.reproduction import PAPER_FILE
from embattle.report import write_reproduction
from embattle.runs import Output, Progress, RunFolder, Task, Tick, execute, kind_of_device, numerics, open_run
from embattle.scenarios import Subject
from embattle.training import Progress as TrainProgress
from embattle.training import TrainConfig, train

# Length of the first page, which these figures do not depend on: 1 % of a named set's gallery is more.
_K = 10
# Effort of a training picture and of a step on an attacked one, in forward passes; only the progress bar depends on it.
_TRAIN_EFFORT, _STEP_EFFORT, _FREE_EFFORT = 3.0, 3.0, 120.0


@dataclass(frozen=True, kw_only=True)
class _Study:
    """A protocol at a scale, with its data; models are made or loaded when the first unit needs them."""

    protocol: Protocol
    scale: Scale
    pictures: ImageSet
    gallery: ImageSet
    models: Path
    device: torch.device
    folder: Callable[[], LocalStore]
    _subjects: dict[tuple[str, int], Subject] = field(default_factory=dict)

    def training(self, network: str, seed: int) -> TrainConfig:
        """The paper's training; its thread count is fixed, because it is part of what a model is."""
        given = {**self.protocol.training, **self.scale.training}
        fitting = networks.arguments_for(network, self.pictures.channels, self.pictures.images.shape[2])
        settings = {
            **given, "network": network, "network_args": {**fitting, **given.get("network_args", {})},
            "epochs": self.scale.epochs, "seed": seed,
            "device": "cpu" if self.device.type == "cpu" else str(self.device),
        }  # fmt: skip
        if "defense" in given:
            return HardenConfig.parse({**settings, "fresh": True})
        return TrainConfig.parse(settings)

    @property
    def numerics(self) -> dict[str, Any]:
        """What figures of this study agree to the last digit under."""
        return numerics(kind_of_device(self.device))

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """Everything that changes a number; neither paths nor the paper's figures."""
        # A plain training is told by its epochs; what departs from it is named as well.
        training = {**self.protocol.training, **self.scale.training}
        return {
            **({"training": training} if training else {}),
            "protocol": self.protocol.name, "numerics": self.numerics,
            "scale": {"attacked": self.scale.attacked, "epochs": self.scale.epochs, "seeds": list(self.scale.seeds)},
            "pictures": self.pictures.fingerprint, "gallery": self.gallery.fingerprint,
            "columns": list(dict.fromkeys(column.attack for column in self.protocol.columns)),
            "eps": list(self.protocol.eps), "attacks": attack_names(self.protocol.eps, self.protocol.columns),
            **({"targets": self.scale.targets} if any(map(shares, self.protocol.columns)) else {}),
        }  # fmt: skip

    def checkpoint(self, network: str, seed: int) -> Path:
        """Where the model of a seed lives; runs with the same training share it."""
        config = self.training(network, seed)
        part = "" if self.scale.training_pictures is None else f"-{len(self.pictures)}pictures"
        part += "" if self.scale.size is None else f"-{self.scale.size}px"
        # Another device rounds otherwise, so it trains a model of its own beside the shared one.
        part += "" if self.device.type == "cpu" else f"-{config.device.replace(':', '')}"
        trained = f"{self.protocol.data}-{config.network}-{config.loss}-{config.similarity}-{config.epochs}epochs"
        if isinstance(config, HardenConfig):
            part += f"-{config.defense}" + ("" if config.precision == "float32" else f"-{config.precision}")
        return self.models / f"{trained}{part}-seed{seed}.safetensors"

    def attacked(self, seed: int) -> tuple[str, ...]:
        """Ids of the pictures attacked under a seed; other ones for every seed."""
        order = rng.generator(seed, "attacked", self.gallery.fingerprint).permutation(len(self.gallery))
        return chosen(self.gallery.ids, order.tolist(), self.scale.attacked)

    def subject(self, network: str, seed: int) -> Subject:
        """The gallery embedded by the model of a seed; one seed's models are held at a time."""
        if (network, seed) not in self._subjects:
            if not self.checkpoint(network, seed).is_file():
                # Moved away or deleted since it was trained: the same training gives the same model.
                _train(self, network, seed, lambda share: None)
            embedder = load_checkpoint(self.checkpoint(network, seed))
            self._check_model(network, seed, embedder.fingerprint)
            embedder.module.to(self.device)
            for other in [held for held in self._subjects if held[1] != seed]:
                del self._subjects[other]
            self._subjects[network, seed] = Subject.of(embedder, self.gallery, k=_K, keep_own=True)
        return self._subjects[network, seed]

    def _check_model(self, network: str, seed: int, fingerprint: str) -> None:
        store = self.folder()
        for unit in store.done():
            if store.unit(unit).kind != "train":
                continue
            for row in store.rows(unit):
                of = row.get("network", self.protocol.network)
                if (of, row["seed"]) == (network, seed) and row["model"] != fingerprint:
                    raise RunMismatch(
                        f"{self.checkpoint(network, seed)} is not the model that this run trained; put that one back, or "
                        f"delete the run folder"
                    )

    def samples(self, column: Column, seed: int) -> tuple[str, ...]:
        """What a column attacks under a seed: pictures, or for universal perturbations the numbers of targets."""
        return tuple(map(str, range(self.scale.targets))) if shares(column) else self.attacked(seed)


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
        tell: told in a sentence, before anything runs, what is done otherwise than asked; the result holds it as well.

    Returns:
        The run folder and the result.

    Raises:
        ConfigError: no such scale.
        DataError: the data set cannot be had.
        RunMismatch: `out` or a model belongs to another configuration.
        RunIncomplete: interrupted; the same call goes on.
    """
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
    if tell is not None:
        for note in notes:
            tell(note)
    place: dict[str, LocalStore] = {}
    study = _Study(
        protocol=protocol, scale=wanted, pictures=pictures, gallery=gallery, models=models, device=torch.device(device),
        folder=lambda: place["run"],
    )  # fmt: skip
    tasks = [task for seed in wanted.seeds for task in _tasks(study, seed)]
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
        )
        for column in protocol.columns
        for eps in (0.0, *protocol.eps)
    ]  # fmt: skip
    described = {
        "protocol": protocol.name, "title": protocol.title, "paper": protocol.paper, "recall": protocol.recall,
        "data": protocol.data, "network": ", ".join(protocol.networks), "differs": list(protocol.differs), "scale": name,
        "judged": scale.judged, "attacked": scale.attacked, "epochs": scale.epochs, "seeds": list(scale.seeds),
        "training_pictures": scale.training_pictures, "gallery": scale.gallery, "notes": notes,
        **({} if scale.size is None else {"size": scale.size}),
    }  # fmt: skip
    return {"described": described, "published": [asdict(each) for each in published]}


def _tasks(study: _Study, seed: int) -> list[Task]:
    """All units of a seed, in order: its models, then column by column the clean system, the bound, and ε by ε."""
    training = {network: _training_task(study, network, seed) for network in study.protocol.networks}
    tasks = list(training.values())
    attacks: dict[str, Column] = {}
    for column in study.protocol.columns:
        attacks.setdefault(column.attack, column)  # columns of several metrics of one attack share it
    for column in attacks.values():
        needs = tuple(training[network].unit.id for network in dict.fromkeys(_networks(study, column)))
        for role, eps in _roles(study.protocol, column):
            tasks.append(_task(study, column, role, eps, seed, needs=needs))
    return tasks


def _training_task(study: _Study, network: str, seed: int) -> Task:
    # Two cards of one kind give the same run: which of them trains is not in its identity.
    config = {**study.training(network, seed).model_dump(mode="json"), "device": kind_of_device(study.device)}
    params = {"train": config, "pictures": study.pictures.fingerprint}
    return Task(
        unit=Unit(kind="train", params=params, samples=(), needs=()),
        work=lambda tick: _train(study, network, seed, tick),
        title=f"seed {seed}: training{'' if network == study.protocol.network else f' {network}'}",
        weight=_TRAIN_EFFORT * study.scale.epochs * len(study.pictures),
    )


def _networks(study: _Study, column: Column) -> tuple[str, str]:
    """On which network a column's pictures are crafted, and on which they are judged."""
    return column.crafted_on or study.protocol.network, column.judged_on or study.protocol.network


def _roles(protocol: Protocol, column: Column) -> list[tuple[Role, float]]:
    attacks: tuple[Role, ...] = ("paper", "adaptive") if protocol.adaptive else ("paper",)
    bound: list[tuple[Role, float]] = [("free", 0.0)] if column.width > 1 else []
    return [("clean", 0.0), *bound, *((role, eps) for eps in protocol.eps for role in attacks)]


def _task(study: _Study, column: Column, role: Role, eps: float, seed: int, needs: tuple[str, ...]) -> Task:
    cell = Cell(column=column, eps=eps, role=role, seed=seed, samples=study.samples(column, seed))
    # Other seeds or columns of the run do not change this cell, so they are not in its identity.
    params = {
        "numerics": study.numerics, "gallery": study.gallery.fingerprint, "column": column.attack, "role": role,
        "eps": eps, "seed": seed, "attack": _attack_name(role, eps, column),
    }  # fmt: skip
    shared = shares(column)
    effort = {"clean": 1.0, "free": _FREE_EFFORT}.get(role) or _STEP_EFFORT * attack_of(role, eps, shared=shared).steps
    pictures = int(LEARNT_FROM * len(study.gallery)) if shared else 1
    source, judge = _networks(study, column)
    return Task(
        unit=Unit(kind="attack", params=params, samples=cell.samples, needs=needs),
        work=lambda tick: measure_cell(study.subject(judge, seed), cell, study.subject(source, seed)),
        title=f"seed {seed}: {column.attack} {role} ε {eps:g}" if eps else f"seed {seed}: {column.attack} {role}",
        weight=effort * len(cell.samples) * pictures,
    )


def _attack_name(role: Role, eps: float, column: Column) -> str:
    if role == "clean":
        return ""
    names = attack_names((eps,), (column,))
    if role == "free":
        return names["free"]
    return names[f"{'universal ' if shares(column) else ''}{role} {eps:g}"]


def _train(study: _Study, network: str, seed: int, tick: Tick) -> Output:
    path = study.checkpoint(network, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = study.scale.epochs

    def show(progress: TrainProgress) -> None:
        tick((progress.epoch - 1 + progress.batch / progress.batches) / whole)

    config = study.training(network, seed)
    if isinstance(config, HardenConfig):
        result = harden(config, None, study.pictures, path, progress=show, evaluate=study.gallery)
    else:
        result = train(config, study.pictures, path, progress=show, evaluate=study.gallery)
    assert result.recall is not None
    row = {"row": "model", "seed": seed, "model": result.embedder.fingerprint, "recall": result.recall.to_json()}
    if len(study.protocol.networks) > 1:
        row["network"] = network
    return Output(rows=[row])
