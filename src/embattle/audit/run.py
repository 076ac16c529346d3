"""From a model and a gallery to a finished run folder; a killed audit goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from embattle import rng
from embattle.audit.attack_unit import Cell, attack_cell, build_attack
from embattle.audit.config import AuditConfig
from embattle.audit.describe import describe, usable
from embattle.audit.masking import PICTURES, Probe, probe_cell, probes
from embattle.audit.same_model import check_same_models
from embattle.audit.universal_unit import SharedCell, build_shared, shared_cell
from embattle.data import ImageSet
from embattle.embedders import Embedder, load_checkpoint
from embattle.errors import ConfigError, DataError, RunMismatch
from embattle.records import LocalStore, Unit, build_summary, write_json_atomic
from embattle.runs import Output, Progress, RunFolder, Task, Tick, execute, kind_of_device, numerics, open_run
from embattle.scenarios.scenario import Scenario
from embattle.scenarios.subject import Subject, check_gallery, page_length
from embattle.scenarios.universal import UniversalScenario, is_universal, learnt_from
from embattle.training import Progress as TrainProgress
from embattle.training import TrainConfig, train

# Effort of the other units in forward passes per picture, roughly; only the progress bar's estimate depends on it.
_EMBED_EFFORT, _TRAIN_EFFORT = 2.0, 3.0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that the run trains itself before it audits it.

    Args:
        config: how; also on which device.
        pictures: on which pictures.
    """

    config: TrainConfig
    pictures: ImageSet


def identity(model: Embedder | Trained) -> dict[str, Any]:
    """What a model is, for the hash of a run: its weights, or the training that makes them."""
    if isinstance(model, Trained):
        return {"train": model.config.model_dump(mode="json"), "pictures": model.pictures.fingerprint}
    return {"fingerprint": model.fingerprint}


@dataclass(frozen=True)
class _Session:
    """The parts of one audit; the model is made or loaded when the first unit needs it."""

    config: AuditConfig
    gallery: ImageSet
    model: Embedder | Trained
    folder: Callable[[], Path]

    @property
    def hashed(self) -> dict[str, Any]:
        """Everything that changes a number; paths are not in it, contents are."""
        numbers = numerics(kind_of_device(self.device))
        gallery = {"fingerprint": self.gallery.fingerprint}
        # By its parts and not by its name alone: a recipe may change from one version to the next.
        attacks = {f"{eps:g}": repr(build_attack(self.config, eps)) for eps in self.config.eps}
        if any(map(is_universal, usable(self.config, self.gallery)[0])):
            attacks |= {f"shared {eps:g}": repr(build_shared(self.config, eps)) for eps in self.config.eps}
        return {
            "audit": self.config.recorded(), "attacks": attacks, "gallery": gallery, "model": identity(self.model),
            "numerics": numbers,
        }  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the model is audited."""
        return torch.device(self.model.config.device) if isinstance(self.model, Trained) else self.model.device

    @cached_property
    def attacked(self) -> tuple[str, ...]:
        """Ids of the attacked pictures."""
        return chosen(self.config, self.gallery)

    @cached_property
    def embedder(self) -> Embedder:
        """The model under audit."""
        if isinstance(self.model, Embedder):
            return self.model
        path = self.folder() / "model.safetensors"
        embedder = load_checkpoint(path)
        trained = next((row["model"] for row in _rows(LocalStore(self.folder()), "train")), embedder.fingerprint)
        if embedder.fingerprint != trained:
            raise RunMismatch(
                f"{path} is not the model this run trained and partly audited; put that one back, or delete the run folder"
            )
        embedder.module.to(self.device)
        return embedder

    @cached_property
    def subject(self) -> Subject:
        """The gallery embedded by the model."""
        return Subject.of(
            self.embedder, self.gallery, k=self.config.k, keep_own=self.config.own == "kept",
            preserve=self.config.preserve, xi=self.config.xi,
        )  # fmt: skip


def audit(
    config: AuditConfig, gallery: ImageSet, model: Embedder | Trained, *, command: str = "embattle audit",
    out: Path | None = None, progress: Progress | None = None, begun: Callable[[RunFolder], None] | None = None,
) -> tuple[RunFolder, dict[str, Any]]:  # fmt: skip
    """Runs an audit, or goes on with one, and writes summary.json.

    Args:
        config: what to try.
        gallery: the pictures the system searches; some of them are attacked.
        model: the embedder, or how to train one first.
        command: the command line, for the report.
        out: the run folder; None: runs/<date>-audit-<hash8>, found again by the configuration's hash.
        progress: told before every unit.
        begun: told the run folder before the first unit, with how many units an earlier start has finished.

    Returns:
        The run folder and the summary.

    Raises:
        InputError: data, model or settings that cannot be audited, each with its sentence.
        RunMismatch: `out` belongs to another configuration.
        RunIncomplete: interrupted; the same call goes on.
    """
    place: dict[str, Path] = {}
    session = _Session(config, gallery, model, lambda: place["run"])
    # Before a folder exists and before a model is trained: what cannot be audited leaves nothing behind.
    check_fit(config, gallery)
    if isinstance(model, Embedder):
        _ = session.subject
    tasks = _plan(session)
    run = open_run(
        "audit",
        session.hashed,
        [task.unit for task in tasks],
        command=command,
        out=out,
        device=kind_of_device(session.device),
    )
    place["run"] = run.path
    if isinstance(model, Embedder):
        check_same_models(run, [session.subject])
    if begun is not None:
        begun(run)
    execute(tasks, run.store, progress)
    summary = build_summary(run.path)
    write_json_atomic(run.path / "summary.json", summary)
    return run, summary


def chosen(config: AuditConfig, gallery: ImageSet) -> tuple[str, ...]:
    """Ids of the pictures to attack: a seeded choice, in gallery order."""
    order = rng.generator(config.seed, "attacked", gallery.fingerprint).permutation(len(gallery))
    return tuple(gallery.ids[i] for i in sorted(order[: config.attacked].tolist()))


def check_fit(config: AuditConfig, gallery: ImageSet) -> None:
    """Checks that a gallery has what the settings ask of it.

    Raises:
        ConfigError: a first page or more targets than the gallery has.
        DataError: fewer than 4 pictures, or no labels for scenarios that all need them.
    """
    check_gallery(gallery, config.k)
    page = page_length(len(gallery), config.k)
    runs, skipped = usable(config, gallery)
    if not runs:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"nothing can be tried: {name}: {reason}; or name other scenarios with --only")
    for scenario in runs:
        wanted, available = scenario.targets(len(gallery), page)
        if wanted > available:
            raise ConfigError(
                f"{scenario.name} needs {wanted} targets for each picture, and there are {available} to choose from in "
                f"this gallery of {len(gallery)} with a first page of {page}; use a smaller number after .w or .m, or a "
                f"larger --k"
            )
    _check_universal(config, gallery, runs)


def _check_universal(config: AuditConfig, gallery: ImageSet, scenarios: Sequence[Scenario]) -> None:
    shared = [scenario for scenario in scenarios if is_universal(scenario)]
    if shared and config.targets > len(gallery):
        raise ConfigError(
            f"{config.targets} targets were asked for, and {gallery.name} has {len(gallery)} pictures to draw them from; "
            f"give a smaller --targets"
        )
    alone = [scenario.name for scenario in scenarios if scenario not in shared]
    if alone and build_attack(config, max(config.eps)).shared:
        raise ConfigError(
            f"attack {config.attack!r} learns one perturbation for many pictures, and {', '.join(alone)} attacks each "
            f"picture alone; give it --only i-ca+ or another universal scenario, or choose another attack"
        )


def _plan(session: _Session) -> list[Task]:
    """All units of an audit, in order: train, describe, then scenario by scenario and ε by ε, then checks of the attack."""
    base = session.hashed
    tasks: list[Task] = []
    needs: tuple[str, ...] = ()
    if isinstance(session.model, Trained):
        unit = Unit(kind="train", params=base["model"], samples=(), needs=())
        effort = _TRAIN_EFFORT * session.model.config.epochs * len(session.model.pictures)
        tasks.append(Task(unit=unit, work=lambda tick: _train(session, tick), title="training the model", weight=effort))
        needs = (unit.id,)
    unit = Unit(kind="evaluate", params=base, samples=(), needs=needs)
    effort = _EMBED_EFFORT * len(session.gallery)
    work = lambda tick: describe(session.subject, session.config)  # noqa: E731
    tasks.append(Task(unit=unit, work=work, title="measuring the clean system", weight=effort))
    return tasks + _attack_tasks(session, base, needs) + _masking_tasks(session, base, needs)


def _attack_tasks(session: _Session, base: dict[str, Any], needs: tuple[str, ...]) -> list[Task]:
    config = session.config
    scenarios, _ = usable(config, session.gallery)
    shards = [session.attacked[i : i + config.shard] for i in range(0, len(session.attacked), config.shard)]
    tasks = []
    for scenario in scenarios:
        if is_universal(scenario):
            tasks += _shared_tasks(session, scenario, base, needs)
            continue
        for eps in (0.0, *config.eps):
            steps = build_attack(config, eps).steps if eps else 0
            for number, samples in enumerate(shards):
                cell = Cell(scenario=scenario, eps=eps, samples=samples, findings=0 if number else config.findings)
                unit = Unit(
                    kind="attack", params={**base, "scenario": scenario.name, "eps": eps}, samples=samples, needs=needs
                )
                title = f"{scenario.name} at ε {eps:g}" if eps else f"{scenario.name}, clean"
                tasks.append(Task(unit=unit, work=_work(session, cell), title=title, weight=len(samples) * (3 * steps + 1)))
    return tasks


def _shared_tasks(
    session: _Session, scenario: UniversalScenario, base: dict[str, Any], needs: tuple[str, ...]
) -> list[Task]:
    """A unit for each ε and random target."""
    config, tasks = session.config, []
    for eps in (0.0, *config.eps):
        steps = build_attack(config, eps).steps if eps else 0
        effort = learnt_from(len(session.gallery), config.attacked) * (3 * steps + 2)
        for number in range(config.targets):
            cell = SharedCell(scenario=scenario, eps=eps, number=number, findings=0 if number else config.findings)
            params = {**base, "scenario": scenario.name, "eps": eps, "target": number}
            unit = Unit(kind="attack", params=params, samples=(), needs=needs)
            title = f"{scenario.name} at ε {eps:g}, target {number + 1}" if eps else f"{scenario.name}, clean"
            tasks.append(Task(unit=unit, work=_shared_work(session, cell), title=title, weight=effort))
    return tasks


def _shared_work(session: _Session, cell: SharedCell) -> Callable[[Tick], Output]:
    return lambda tick: shared_cell(session.subject, cell, session.config)


def _masking_tasks(session: _Session, base: dict[str, Any], needs: tuple[str, ...]) -> list[Task]:
    """A score is worth as much as the gradients it was made with: the suite looks at them."""
    if session.config.suite != "ers":
        return []
    samples = session.attacked[:PICTURES]
    tasks = []
    for each in probes(session.config):
        unit = Unit(kind="attack", params={**base, "masking": each.params}, samples=samples, needs=needs)
        effort = len(samples) * each.steps * (3 if each.role == "white" else 1)
        tasks.append(Task(unit=unit, work=_probing(session, each, samples), title=each.title, weight=effort))
    return tasks


def _probing(session: _Session, probe: Probe, samples: tuple[str, ...]) -> Callable[[Tick], Output]:
    return lambda tick: probe_cell(session.subject, probe, samples, session.config)


def _work(session: _Session, cell: Cell) -> Callable[[Tick], Output]:
    return lambda tick: attack_cell(session.subject, cell, session.config)


def _train(session: _Session, tick: Tick) -> Output:
    model = session.model
    assert isinstance(model, Trained)

    def show(progress: TrainProgress) -> None:
        tick(progress.share)

    train(model.config, model.pictures, session.folder() / "model.safetensors", progress=show)
    text = (
        f"No model was given: a small one ({model.config.network}) was trained for {model.config.epochs} epochs on "
        f"{len(model.pictures):,} pictures of {model.pictures.name}. It stands in for yours; audit your own with --model."
    )
    fingerprint = load_checkpoint(session.folder() / "model.safetensors").fingerprint
    return Output(rows=[{"row": "note", "text": text, "model": fingerprint}])


def _rows(store: LocalStore, kind: str) -> list[dict[str, Any]]:
    finished = [unit for unit in store.done() if store.unit(unit).kind == kind]
    return [row for unit in finished for row in store.rows(unit)]
