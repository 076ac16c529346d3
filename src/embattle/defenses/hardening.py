"""Hardening: a model in, a model out that was trained on attacks on itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embattle.data import ImageSet
from embattle.defenses.config import HardenConfig
from embattle.defenses.training import DEFENSES
from embattle.defenses.training.defense import defense_class
from embattle.embedders import Embedder
from embattle.errors import ConfigError, DataError
from embattle.training import ModelFile, Progress, TrainResult, WeightsFile, check_labels, train


def check_hardening(config: HardenConfig, pictures: ImageSet) -> None:
    """Tells before anything is computed what a hardening would be refused for.

    Raises:
        ConfigError: `fresh` without a network.
        DataError: pictures without the labels that the defense needs.
    """
    if config.fresh and config.network is None:
        raise ConfigError(
            "fresh weights need a network that Embattle knows, and none is named; leave fresh out: the model's own weights "
            "are trained further"
        )
    if not defense_class(config.defense).needs_labels:
        return
    if pictures.labels is None:
        unlabelled = [entry.name for entry in DEFENSES if not defense_class(entry.name).needs_labels]
        raise DataError(
            f"{pictures.name} has no labels, and {config.defense} needs them; put the pictures into one folder per class, "
            f"or take a defense that needs none: {', '.join(unlabelled)}"
        )
    check_labels(pictures)


def harden(
    config: HardenConfig, embedder: Embedder | None, pictures: ImageSet, out: Path, *, model_file: ModelFile | None = None,
    progress: Callable[[Progress], None] | None = None, resume: bool = True, evaluate: ImageSet | None = None,
) -> TrainResult:  # fmt: skip
    """Trains a model on attacks on itself and writes it; the given one stays as it is.

    A killed run goes on with the same call. A loss that stops being finite and embeddings that all become equal end it with
    the last good epoch kept.

    Args:
        config: which defense, against which attack.
        embedder: the model to harden, on its device; None with `fresh`, unless the defense needs an original.
        pictures: what it is trained on, as the model takes them; without labels only defenses that need none.
        out: the file to write, "....safetensors".
        model_file: how the model is written; None: as weights of `embedder`, or of the fresh network as a checkpoint.
        progress: called after every batch.
        resume: go on from an earlier start; False: begin again and overwrite.
        evaluate: labelled pictures whose Recall@1 is measured at the end.

    Raises:
        ConfigError: settings that do not fit the model, `fresh` without a network, or a network without `fresh`.
        DataError: pictures without the labels that the defense needs, or that the model cannot take.
        ModelError: the loss became NaN or infinite, or the model collapsed.
        RunIncomplete: interrupted; the same call goes on.
    """
    if embedder is not None and not isinstance(embedder, Embedder):
        raise ConfigError(
            f"harden takes an Embedder, not a {type(embedder).__name__}; write embattle.Embedder(module, channels=...)"
        )
    check_hardening(config, pictures)
    if embedder is None and not config.fresh:
        raise ConfigError("there is no model to harden; give one, or a network with fresh=True")
    if config.network is not None and not config.fresh and model_file is None:
        raise ConfigError(
            f"network = {config.network} is for fresh weights, and the given model is trained further; leave it out, or "
            f"set fresh"
        )
    if model_file is None and embedder is not None and not config.fresh:
        model_file = WeightsFile(base=embedder)
    return train(
        config, pictures, out, start=None if config.fresh else embedder, step=config.step(embedder),
        model_file=model_file, batch_norm=config.batch_norm, progress=progress, resume=resume, evaluate=evaluate,
    )  # fmt: skip
