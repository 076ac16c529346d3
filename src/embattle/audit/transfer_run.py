"""From several models and a gallery to a finished run folder with the matrices of what transfers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embattle.audit.attack_unit import Cell, build_attack
from embattle.audit.describe import clean_rows, model_warnings, notes, subject_row, threat_row, usable
from embattle.audit.run import check_fit, chosen
from embattle.audit.same_model import check_same_models
from embattle.audit.transfer_config import TransferConfig
from embattle.audit.transfer_unit import Crossing, cross
from embattle.data import ImageSet
from embattle.embedders import Embedder
from embattle.errors import ConfigError, ModelError
from embattle.records import Unit, build_transfer, write_json_atomic
from embattle.records.transfer import MODELS_FILE
from embattle.runs import Output, Progress, RunFolder, Task, execute, kind_of_device, numerics, open_run
from embattle.scenarios.scenario import Scenario, named
from embattle.scenarios.subject import Subject
from embattle.scenarios.universal import is_universal

# Effort of describing a model in forward passes a picture, roughly; only the progress bar's estimate depends on it.
_EMBED_EFFORT = 2.0


@dataclass(frozen=True)
class _Session:
    """The parts of one transfer."""

    config: TransferConfig
    gallery: ImageSet
    models: Mapping[str, Embedder]

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """Everything that changes a number: neither what the models are called nor their order."""
        kinds = sorted({kind_of_device(model.device) for model in self.models.values()})
        # By its parts and not by its name alone: a recipe may change from one version to the next.
        attacks = {f"{eps:g}": repr(build_attack(self.config, eps)) for eps in self.config.eps}
        return {
            "transfer": self.config.recorded(), "attacks": attacks, "gallery": {"fingerprint": self.gallery.fingerprint},
            "models": sorted(self.names), "numerics": numerics(", ".join(kinds)),
        }  # fmt: skip

    @cached_property
    def names(self) -> dict[str, str]:
        """Names by fingerprint."""
        return {model.fingerprint: name for name, model in self.models.items()}

    @cached_property
    def subjects(self) -> dict[str, Subject]:
        """The gallery embedded by every model, by fingerprint; the same order however the models were given."""
        config = self.config
        made = {
            model.fingerprint: Subject.of(
                model, self.gallery, k=config.k, keep_own=config.own == "kept", preserve=config.preserve, xi=config.xi
            )
            for model in self.models.values()
        }
        return dict(sorted(made.items()))

    @property
    def sources(self) -> list[str]:
        """Fingerprints of the models that something can be crafted on, in the order given."""
        return [model.fingerprint for model in self.models.values() if model.access == "gradient"]


def transfer(
    config: TransferConfig, gallery: ImageSet, models: Mapping[str, Embedder], *, command: str = "embattle transfer",
    out: Path | None = None, progress: Progress | None = None, begun: Callable[[RunFolder], None] | None = None,
) -> tuple[RunFolder, dict[str, Any]]:  # fmt: skip
    """Crafts pictures on every model and judges them on every model; goes on with a run that was stopped.

    Args:
        config: what to try.
        gallery: the pictures every system searches; some of them are attacked.
        models: at least two different ones by name, all with the gallery's channels. They may differ in everything else:
            input size, preprocessing, similarity, length of the embedding. One without gradients is only judged.
        command: the command line, for the report.
        out: the run folder; None: runs/<date>-transfer-<hash8>, found again by the configuration's hash.
        progress: told before every unit.
        begun: told the run folder before the first unit, with how many units an earlier start has finished.

    Returns:
        The run folder and its record ("embattle.transfer/1"), which is also in summary.json.

    Raises:
        InputError: data, models or settings that cannot be used, each with its sentence.
        RunMismatch: `out` belongs to another configuration, or was begun with a model that answers otherwise.
        RunIncomplete: interrupted; the same call goes on.
    """
    session = _Session(config, gallery, models)
    _check_models(session)
    check_fit(config, gallery)
    _check_scenarios(config)
    # Before a folder exists: a model that cannot embed the gallery leaves nothing behind.
    _ = session.subjects
    tasks = list(_plan(session))
    device = session.hashed["numerics"]["device"]
    run = open_run("transfer", session.hashed, [task.unit for task in tasks], command=command, out=out, device=device)
    # Outside the hash: another name for a model, or another order of the rows, costs no attack.
    write_json_atomic(run.path / MODELS_FILE, {"models": session.names})
    check_same_models(run, session.subjects.values())
    if begun is not None:
        begun(run)
    execute(tasks, run.store, progress)
    record = build_transfer(run.path)
    write_json_atomic(run.path / "summary.json", record)
    return run, record


def _check_models(session: _Session) -> None:
    models = session.models
    if len(models) < 2:
        raise ConfigError(f"a transfer takes at least two models, not {len(models)}; give every one that is to be compared")
    seen: dict[str, str] = {}
    for name, model in models.items():
        twin = seen.setdefault(model.fingerprint, name)
        if twin != name:
            raise ConfigError(
                f"{twin} and {name} are the same model: what is crafted on it is judged on it as well, without giving it "
                f"twice; leave one out"
            )
        if model.channels != session.gallery.channels:
            raise ModelError(
                f"{name} takes pictures of {model.channels} channel(s), and those of {session.gallery.name} have "
                f"{session.gallery.channels}; every model is shown the same saved picture, so all must take as many"
            )
    if not session.sources:
        raise ModelError(f"none of {', '.join(models)} gives gradients, so nothing can be crafted; add a model that does")


def _check_scenarios(config: TransferConfig) -> None:
    shared = [name for name in config.scenarios if is_universal(named(name))]
    if shared:
        raise ConfigError(
            f"{', '.join(shared)} learns one perturbation for many pictures, and a transfer crafts every picture alone; "
            f"leave it out, or audit it on each model"
        )


def _plan(session: _Session) -> Iterator[Task]:
    """All units in order: the models, then scenario by scenario the clean system, and ε by ε and model by model."""
    config, base = session.config, session.hashed
    unit = Unit(kind="evaluate", params=base, samples=(), needs=())
    effort = _EMBED_EFFORT * len(session.gallery) * len(session.models)
    yield Task(unit=unit, work=lambda tick: _describe(session), title="measuring the clean systems", weight=effort)
    scenarios, _ = usable(config, session.gallery)
    samples = chosen(config, session.gallery)
    shards = [samples[i : i + config.shard] for i in range(0, len(samples), config.shard)]
    for scenario in scenarios:
        for shard in shards:
            yield _task(session, scenario, 0.0, shard, None, findings=0)
        for eps in config.eps:
            for source in session.sources:
                for number, shard in enumerate(shards):
                    yield _task(session, scenario, eps, shard, source, findings=0 if number else config.findings)


def _task(
    session: _Session, scenario: Scenario, eps: float, samples: tuple[str, ...], source: str | None, *, findings: int
) -> Task:
    crossing = Crossing(cell=Cell(scenario=scenario, eps=eps, samples=samples, findings=findings), source=source)
    params = {**session.hashed, "scenario": scenario.name, "eps": eps, "source": source}
    crafted = "clean" if source is None else f"ε {eps:g}, crafted on {session.names[source]}"
    return Task(
        unit=Unit(kind="attack", params=params, samples=samples, needs=()),
        work=lambda tick: cross(session.subjects, crossing, session.config),
        title=f"{scenario.name}, {crafted}",
        weight=len(samples) * (1 + 3 * _steps(session, scenario, eps)),
    )


def _steps(session: _Session, scenario: Scenario, eps: float) -> int:
    """Gradient steps that a unit makes with each picture, over all its attacks."""
    if not eps:
        return 0
    wanted, available = scenario.targets(len(session.gallery), session.config.k)
    drawn_by_all = wanted == 0 or available >= len(session.gallery) - 1
    return build_attack(session.config, eps).steps * (1 if drawn_by_all else len(session.models))


def _describe(session: _Session) -> Output:
    """Rows on the models and how good they are when nobody attacks, on every threat, and on what was skipped."""
    config = session.config
    runs, skipped = usable(config, session.gallery)
    rows: list[dict[str, Any]] = []
    for fingerprint, subject in session.subjects.items():
        clean = {row["figure"]: row["value"] for row in clean_rows(subject, config.seed)}
        size = None if subject.embedder.size is None else list(subject.embedder.size)
        gives = subject.embedder.access == "gradient"
        rows.append({**subject_row(subject), "row": "model", "size": size, "gradients": gives, "clean": clean})
        assert rows[-1]["fingerprint"] == fingerprint
        rows += [{"row": "note", "text": f"{subject.embedder.name}: {text}"} for text in model_warnings(subject)]
    first = next(iter(session.subjects.values()))
    rows += [threat_row(first, scenario, config) for scenario in runs]
    rows += [{"row": "skipped", "scenario": name, "reason": reason} for name, reason in skipped.items()]
    return Output(rows=[*rows, *({"row": "note", "text": text} for text in notes(first, config))])
