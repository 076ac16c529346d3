"""Hardening as a run: audit the model, train it against attacks, audit what came out, lay both beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embattle.audit.config import AuditConfig
from embattle.audit.run import Trained, audit, check_fit, identity
from embattle.data import ImageSet
from embattle.defenses import HardenConfig, check_hardening, harden
from embattle.embedders import Embedder, load_checkpoint
from embattle.errors import RunMismatch
from embattle.records import Unit, build_hardening
from embattle.records.hardening import NAMES
from embattle.report import write_comparison, write_report
from embattle.runs import Output, Progress, RunFolder, Task, Tick, execute, kind_of_device, numerics, open_run
from embattle.scenarios import Subject
from embattle.training import ModelFile, NetworkFile, WeightsFile
from embattle.training import Progress as TrainProgress

MODEL = "hardened.safetensors"
# A row of the training unit: what the page says of it.
_ROW = "hardened"
# Pictures on which a model is tried before its run has a folder.
_PROBES = 256


@dataclass(frozen=True, kw_only=True)
class Hardening:
    """A model, the pictures it is trained on, and the gallery it is audited on before and afterwards.

    Args:
        config: the defense and its training.
        audit: what is tried before and after.
        model: the model to harden, or how to train one first.
        pictures: what the defense trains on, as the model takes them.
        gallery: what the system searches; some of it is attacked.
        model_file: how the hardened model is written; None: as weights of `model`.
    """

    config: HardenConfig
    audit: AuditConfig
    model: Embedder | Trained
    pictures: ImageSet
    gallery: ImageSet
    model_file: ModelFile | None = None

    @property
    def hashed(self) -> dict[str, Any]:
        """Everything that changes a number."""
        device = torch.device(self.config.device)
        return {
            "harden": self.config.model_dump(mode="json"), "audit": self.audit.model_dump(mode="json"),
            "model": identity(self.model), "pictures": {"fingerprint": self.pictures.fingerprint},
            "gallery": {"fingerprint": self.gallery.fingerprint}, "numerics": numerics(kind_of_device(device)),
        }  # fmt: skip

    def run(
        self, *, command: str = "embattle harden", out: Path | None = None, progress: Progress | None = None,
        begun: Callable[[RunFolder], None] | None = None, stage: Callable[[str], None] | None = None,
    ) -> tuple[RunFolder, dict[str, Any]]:  # fmt: skip
        """Runs, or goes on with an earlier start; the folder holds the model, both audits and the comparison.

        Args:
            command: the command line, for the report.
            out: the run folder; None: runs/<date>-harden-<hash8>, found again by the configuration's hash.
            progress: told before every unit.
            begun: told the run folder before the first unit.
            stage: told in a sentence which of the three parts begins.

        Returns:
            The run folder and the comparison.

        Raises:
            InputError: data, model or settings that do not fit, each with its sentence.
            ModelError: the training diverged or collapsed; the last good epoch is kept.
            RunMismatch: `out` belongs to another configuration, or its model is not the one it trained.
            RunIncomplete: interrupted; the same call goes on.
        """
        self._check()
        tell = stage or (lambda sentence: None)
        unit = Unit(kind="train", params=self.hashed, samples=(), needs=())
        device = kind_of_device(torch.device(self.config.device))
        run = open_run("harden", self.hashed, [unit], command=command, out=out, device=device)
        if begun is not None:
            begun(run)
        tell("1 of 3: auditing the model as it is")
        self._audited(self.model, run.path / NAMES[0], command, progress)
        tell(f"2 of 3: training it with {self.config.defense}")
        original = self._original(run.path)
        work = Task(
            unit=unit,
            work=lambda tick: self._train(original, run.path / MODEL, tick),
            title=f"training, {self.config.defense}",
        )
        execute([work], run.store, progress)
        tell("3 of 3: auditing the hardened model")
        self._audited(self._hardened(run, original), run.path / NAMES[1], command, progress)
        comparison = build_hardening(run.path)
        write_comparison(run.path, comparison)
        return run, comparison

    def _audited(self, model: Embedder | Trained, out: Path, command: str, progress: Progress | None) -> None:
        run, _ = audit(self.audit, self.gallery, model, command=command, out=out, progress=progress)
        write_report(run.path)

    def _check(self) -> None:
        """Before a folder exists and before anything is audited: what cannot be hardened leaves nothing behind."""
        check_hardening(self.config, self.pictures)
        check_fit(self.audit, self.gallery)
        if isinstance(self.model, Embedder):
            Subject.of(self.model, self.gallery.some(_PROBES), k=1, keep_own=True)

    def _hardened(self, run: RunFolder, original: Embedder) -> Embedder:
        path = run.path / MODEL
        if not path.is_file():
            # Moved away or deleted since it was trained: the same training gives the same model.
            self._train(original, path, lambda share: None)
        hardened = self._file(original).load(path)
        trained = [row["model"] for unit in run.store.done() for row in run.store.rows(unit)]
        if trained != [hardened.fingerprint]:
            raise RunMismatch(f"{path} is not the model that this run trained; put that one back, or delete the run folder")
        hardened.module.to(original.device)
        return hardened

    def _original(self, run: Path) -> Embedder:
        if isinstance(self.model, Embedder):
            return self.model
        embedder = load_checkpoint(run / NAMES[0] / "model.safetensors")
        embedder.module.to(self.model.config.device)
        return embedder

    def _file(self, original: Embedder) -> ModelFile:
        if self.model_file is not None:
            return self.model_file
        if isinstance(self.model, Trained):
            training = self.model.config
            return NetworkFile(network=str(training.network), network_args=training.network_args)
        return WeightsFile(base=original)

    def _train(self, original: Embedder, path: Path, tick: Tick) -> Output:
        epochs = self.config.epochs

        def show(progress: TrainProgress) -> None:
            tick((progress.epoch - 1 + progress.batch / progress.batches) / epochs)

        result = harden(self.config, original, self.pictures, path, model_file=self._file(original), progress=show)
        seconds = [row["seconds"] for row in result.history if "seconds" in row]
        row = {
            "row": _ROW, "model": result.embedder.fingerprint, "losses": [row["loss"] for row in result.history],
            "pictures": len(self.pictures), "data": self.pictures.name, "audited": self.pictures.shared_with(self.gallery),
        }  # fmt: skip
        return Output(rows=[row], cost={"epochs_seconds": sum(seconds)} if len(seconds) == epochs else {})
