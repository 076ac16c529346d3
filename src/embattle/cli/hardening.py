"""What `embattle harden` does once its flags are read: load, run with a progress bar, say where the model is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from embattle.audit import DEFAULT_EPS, AuditConfig, Hardening, Trained
from embattle.audit.hardening import MODEL
from embattle.cli.auditing import load_split, load_subject, tell, tell_what_was_there
from embattle.cli.flags import WhenDamaged
from embattle.cli.progress import follow
from embattle.cli.stopping import reporting
from embattle.cli.verdict import conclude_comparison
from embattle.data import ImageSet, has_split
from embattle.defenses import HardenConfig
from embattle.embedders import Embedder, read_meta
from embattle.records import build_hardening
from embattle.report import write_comparison
from embattle.runs import RunFolder
from embattle.training import NetworkFile, epochs_done, going_on


def planned(
    settings: Mapping[str, Any], tried: Mapping[str, Any], *, data: str, model: str | None, data_root: Path | None,
    on_error: WhenDamaged, threads: int | None, device: str | None, preprocessing: Mapping[str, Any],
    pictures: int | None,
) -> Hardening:  # fmt: skip
    """The hardening that a command line asks for.

    Args:
        settings: of `HardenConfig`.
        tried: of `AuditConfig`, where given.
        data, model, data_root, on_error, threads, device, preprocessing: as in `load_subject`.
        pictures: how many of the training pictures are used; None: all.

    Raises:
        ConfigError: settings that are not allowed, or do not fit the model.
        DataError: no such data, or no labels where they are needed.
    """
    # Read before anything is loaded: a typing error must not cost the loading of a large model.
    wanted = HardenConfig.parse(settings)
    # A suite has its own ε, with which scores are compared.
    budgets = {} if tried.get("suite") else {"eps": sorted({*DEFAULT_EPS, wanted.eps})}
    audited = AuditConfig.parse({**budgets, **tried})
    gallery, subject = load_subject(
        data, model, audited, data_root=data_root, on_error=on_error, threads=threads, device=device,
        preprocessing=preprocessing,
    )  # fmt: skip
    network: dict[str, Any] = {}
    if isinstance(subject, Trained):
        training = subject.pictures
        network = {"network": subject.config.network, "network_args": subject.config.network_args}
        similarity, place = subject.config.similarity, subject.config.device
    else:
        training, gallery = _split(data, gallery, subject, data_root=data_root, on_error=on_error)
        if str(model).startswith("checkpoint:"):
            meta = read_meta(Path(str(model).removeprefix("checkpoint:")))
            network = {"network": meta["network"], "network_args": meta["network_args"]}
        similarity, place = subject.similarity.name, str(subject.device)
    config = HardenConfig.parse(
        {**settings, **network, "similarity": similarity, "device": place, "threads": torch.get_num_threads()}
    )
    return Hardening(
        config=config, audit=audited, model=subject, pictures=training.some(pictures), gallery=gallery,
        model_file=NetworkFile(**network) if network else None,
    )  # fmt: skip


def _split(
    data: str, gallery: ImageSet, embedder: Embedder, *, data_root: Path | None, on_error: WhenDamaged
) -> tuple[ImageSet, ImageSet]:
    """What is trained on, and what is audited; the same pictures only where there is no other choice."""
    training = load_split(data, "train", embedder, data_root=data_root, on_error=on_error)
    if has_split(data):
        return training, gallery
    if not gallery.labelled:
        tell(
            f"{gallery.name} has no labels and is not split: the model is trained on the pictures it is audited on, so the "
            f"audit after will look better than on pictures it has not seen"
        )
        return training, gallery
    return training, load_split(data, "test", embedder, data_root=data_root, on_error=on_error)


def run_hardening(hardening: Hardening, *, command: str, out: Path | None, model: str | None) -> None:
    """Runs and tells on stderr how far it is, prints the comparison, and says how to load the model.

    Raises:
        RunIncomplete: stopped; the folder, which it names, has a report once both audits have begun.
    """
    with reporting(_write_unfinished) as folder, follow() as progress:

        def begun(run: RunFolder) -> None:
            folder(run.path)
            tell_what_was_there(run)
            if done := epochs_done(run.path / MODEL):
                tell(f"training: {going_on(done, hardening.config.epochs)}")

        run, comparison = hardening.run(command=command, out=out, progress=progress, begun=begun, stage=tell)
    conclude_comparison(run.path, comparison)
    print(f"model   {spec_of(run.path / MODEL, model)}")


def spec_of(path: Path, model: str | None) -> str:
    """How the hardened model is named on a command line.

    >>> spec_of(Path("hardened.safetensors"), "weights:older.safetensors@hf:clip")
    'weights:hardened.safetensors@hf:clip'
    """
    if model is None or model.startswith("checkpoint:"):
        return f"checkpoint:{path}"
    base = model.partition("@")[2] if model.startswith("weights:") else model
    return f"weights:{path}@{base}"


def _write_unfinished(run: Path) -> Path:
    return write_comparison(run, build_hardening(run))
