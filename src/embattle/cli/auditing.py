"""What `embattle audit` does once its flags are read: load, run with a progress bar, write the report, check the gates."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from embattle import data as datasets
from embattle import embedders, networks, rng
from embattle.audit import AuditConfig, Trained, all_attacked, audit, prospect
from embattle.cli.flags import WhenDamaged
from embattle.cli.progress import follow
from embattle.cli.stopping import reporting
from embattle.cli.verdict import conclude, write_unfinished
from embattle.data import ImageSet, Split
from embattle.embedders import Embedder
from embattle.errors import ConfigError, DataError
from embattle.records import Gate
from embattle.runs import RunFolder
from embattle.training import TrainConfig

# The stand-in model is trained in under a minute on two cores: small pictures, and no more of them than that allows.
_STAND_IN = {"network": "small", "batch_size": 200}
_MOST_TRAINING_PICTURES = 6000
# Pixels that two cores train on in well under a minute, all epochs together.
_TRAINING_PIXELS, _FEWEST_EPOCHS, _MOST_EPOCHS = 50e6, 3, 20


def check_gates(gates: Sequence[Gate], config: AuditConfig, gallery: ImageSet) -> None:
    """Tells before an audit what can be told of its gates: whether they speak of something that it measures.

    Raises:
        ConfigError: a gate on a scenario, figure or ε that this audit does not have.
    """
    planned = prospect(config, gallery) if gates else {}
    for gate in gates:
        gate.find(planned)


def load_subject(
    data: str, model: str | None, config: AuditConfig, *, data_root: Path | None, on_error: WhenDamaged,
    threads: int | None, device: str | None, preprocessing: Mapping[str, Any],
) -> tuple[ImageSet, Embedder | Trained]:  # fmt: skip
    """The gallery and the model on its device, or the plan to train one.

    Raises:
        ConfigError: preprocessing without a model that takes it, an impossible number of threads, no such device.
        DataError: pictures without labels and no model.
    """
    use_threads(threads)
    place = None if device is None else usable_device(device)
    if model is not None:
        embedder = embedders.load(model, **preprocessing)
        if place is not None:
            embedder.module.to(place)
        return load_gallery(data, embedder, data_root=data_root, on_error=on_error), embedder
    if preprocessing:
        raise ConfigError(f"{', '.join('--' + name for name in preprocessing)} describes a model; give one with --model")
    return _with_stand_in(data, config, data_root, on_error, str(place or "cpu"))


def use_threads(threads: int | None) -> None:
    """Sets the number of processor threads; None: torch's own choice, which heeds OMP_NUM_THREADS.

    Raises:
        ConfigError: fewer than one.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, not {threads}")
    if threads is not None:
        torch.set_num_threads(threads)


def usable_device(name: str) -> torch.device:
    """The device called `name`, with its number.

    Raises:
        ConfigError: it is not known, or this machine does not have it.
    """
    try:
        return torch.empty(1, device=name).cpu().to(name).device
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise ConfigError(f"--device {name!r} cannot be used ({reason}); this machine has: {found}") from error


def load_gallery(data: str, embedder: Embedder, *, data_root: Path | None, on_error: WhenDamaged) -> ImageSet:
    """The pictures in the form the model takes them: a named set's test split, or the whole of a folder.

    Raises:
        DataError: no such data, or fewer than two pictures.
        ImageFileError: a damaged picture.
    """
    split: Split = "test" if datasets.has_split(data) else "all"
    return load_split(data, split, embedder, data_root=data_root, on_error=on_error)


def load_split(data: str, split: Split, embedder: Embedder, *, data_root: Path | None, on_error: WhenDamaged) -> ImageSet:
    """Pictures of a split in the form the model takes them.

    Raises:
        DataError: no such data, or fewer than two pictures.
        ImageFileError: a damaged picture.
    """
    # Most named sets keep the size they have; the pictures of a folder have no common one.
    side = None if datasets.has_size(data) else embedders.picture_side(embedder)
    return datasets.load(data, split=split, root=data_root, channels=embedder.channels, size=side, on_error=on_error)


def untrained_stand_in(data: str, *, data_root: Path | None, on_error: WhenDamaged) -> tuple[Embedder, ImageSet]:
    """The network that stands in for a missing model, before training, and the pictures it would be audited on."""
    pictures = datasets.load(data, split="test", root=data_root, size=_stand_in_side(data), on_error=on_error)
    fitting = networks.arguments_for("small", pictures.channels, pictures.images.shape[2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = networks.build("small", **fitting)
    return Embedder(module, channels=pictures.channels, name="small, untrained"), pictures


def _stand_in_side(data: str) -> int:
    return 32 if data in datasets.DATASETS else 64


def _with_stand_in(
    data: str, config: AuditConfig, root: Path | None, on_error: WhenDamaged, device: str
) -> tuple[ImageSet, Trained]:
    side = _stand_in_side(data)
    train = datasets.load(data, split="train", root=root, size=side, on_error=on_error)
    test = datasets.load(data, split="test", root=root, size=side, on_error=on_error)
    if not train.labelled:
        raise DataError(
            f"{train.name} has no labels, so no stand-in model can be trained on it; give yours with --model "
            f"({', '.join(f'{source.name}:...' for source in embedders.ADAPTERS)}), or one sub-folder per class"
        )
    if len(train) > _MOST_TRAINING_PICTURES:
        order = rng.generator(config.seed, "stand-in", train.name).permutation(len(train))
        train = train.take(sorted(order[:_MOST_TRAINING_PICTURES].tolist()))
    fitting = networks.arguments_for("small", train.images.shape[1], train.images.shape[2])
    threads = torch.get_num_threads()
    affordable = int(_TRAINING_PIXELS / (len(train) * side**2))
    epochs = min(max(affordable, _FEWEST_EPOCHS), _MOST_EPOCHS)
    settings = TrainConfig.parse(
        {**_STAND_IN, "epochs": epochs, "network_args": fitting, "seed": config.seed, "threads": threads, "device": device}
    )
    return test, Trained(config=settings, pictures=train)


def run_audit(
    config: AuditConfig, gallery: ImageSet, model: Embedder | Trained, gates: Sequence[Gate], *, command: str,
    out: Path | None,
) -> None:  # fmt: skip
    """Runs and tells on stderr how far it is, writes summary.json and report.html, prints the table.

    Raises:
        GateFailed: a gate does not hold.
        ConfigError: a gate on a figure that the run does not have.
        RunIncomplete: stopped; the folder, which it names, has a report of what is done.
    """
    if config.attacked > len(gallery):
        tell(all_attacked(config, gallery))
    with reporting(write_unfinished) as folder, follow() as progress:

        def begun(run: RunFolder) -> None:
            folder(run.path)
            tell_what_was_there(run)

        run, summary = audit(config, gallery, model, command=command, out=out, progress=progress, begun=begun)
    conclude(run.path, summary, gates)


def tell_what_was_there(run: RunFolder) -> None:
    """Says on stderr how much of a run an earlier start has finished, and where it lies."""
    if run.found == run.planned:
        tell(f"finished before: all {run.planned} units were there, in {run.path}")
    elif run.found:
        tell(f"resumed: {run.found} of {run.planned} units were there, in {run.path}")


def tell(sentence: str) -> None:
    """Says a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)
