"""What `embattle transfer` does once its flags are read: load the models, run with a progress bar, write the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from embattle import data as datasets
from embattle import embedders
from embattle.audit import TransferConfig, all_attacked, transfer
from embattle.cli.auditing import tell, tell_what_was_there, usable_device, use_threads
from embattle.cli.flags import WhenDamaged
from embattle.cli.progress import follow
from embattle.cli.stopping import reporting
from embattle.cli.verdict import conclude_transfer, write_unfinished_transfer
from embattle.data import ImageSet, Split
from embattle.embedders import Embedder
from embattle.errors import ConfigError
from embattle.runs import RunFolder


def run_transfer(
    settings: Mapping[str, Any], specs: Sequence[tuple[str | None, str]], data: str, *, data_root: Path | None,
    on_error: WhenDamaged, threads: int | None, device: str | None, command: str, out: Path | None, markdown: bool,
) -> None:  # fmt: skip
    """Loads models and gallery, crafts and judges, and prints the matrices.

    Raises:
        InputError: settings, models or data that cannot be used.
        RunIncomplete: stopped; the folder, which it names, has a report of what is done.
    """
    config = TransferConfig.parse(settings)
    if len(specs) < 2:
        raise ConfigError(
            f"a transfer takes at least two models, not {len(specs)}; write --model KIND:PATH for each of them"
        )
    use_threads(threads)
    models = load_models(specs, None if device is None else usable_device(device))
    gallery = load_common_gallery(data, list(models.values()), data_root=data_root, on_error=on_error)
    if config.attacked > len(gallery):
        tell(all_attacked(config, gallery))
    with reporting(write_unfinished_transfer) as folder, follow() as progress:

        def begun(run: RunFolder) -> None:
            folder(run.path)
            tell_what_was_there(run)

        run, record = transfer(config, gallery, models, command=command, out=out, progress=progress, begun=begun)
    conclude_transfer(run.path, record, markdown=markdown)


def load_models(specs: Sequence[tuple[str | None, str]], place: torch.device | None) -> dict[str, Embedder]:
    """The models by name; without one a checkpoint is called as its file, others as they call themselves.

    Raises:
        ConfigError: two models of one name.
        ModelError: one that cannot be loaded.
    """
    models: dict[str, Embedder] = {}
    for given, spec in specs:
        embedder = embedders.load(spec)
        if place is not None:
            embedder.module.to(place)
        scheme, _, path = spec.partition(":")
        name = given or (Path(path).stem if scheme == "checkpoint" else embedder.name)
        if name in models:
            raise ConfigError(
                f"two models are called {name!r}; give each a name of its own, for example --model first={spec}"
            )
        models[name] = embedder
    return models


def load_common_gallery(
    data: str, models: Sequence[Embedder], *, data_root: Path | None, on_error: WhenDamaged
) -> ImageSet:
    """The pictures in one form for all models, with the channels of the first.

    Those without a common size get the largest side that any model sees; beside a model that takes any size they stay as
    they are.

    Raises:
        DataError: no such data, or too few pictures.
        ImageFileError: a damaged picture.
    """
    channels = models[0].channels
    if datasets.has_size(data):
        return datasets.load(data, split="test", root=data_root, channels=channels, on_error=on_error)
    sides = [embedders.picture_side(model) for model in models]
    known = [side for side in sides if side is not None]
    side = max(known) if len(known) == len(sides) else None
    split: Split = "test" if datasets.has_split(data) else "all"
    return datasets.load(data, split=split, root=data_root, channels=channels, size=side, on_error=on_error)
