"""A protocol at a scale, with its data: which models it trains, where they lie, and what they are attacked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from embattle import networks, rng
from embattle.data import ImageSet
from embattle.defenses import HardenConfig, harden
from embattle.embedders import Embedder, load_checkpoint
from embattle.errors import RunMismatch
from embattle.protocols.cells import attack_names, chosen, shares
from embattle.protocols.protocol import Column, Protocol, Scale
from embattle.records import LocalStore
from embattle.runs import kind_of_device, numerics
from embattle.scenarios import Subject
from embattle.training import NetworkFile, TrainConfig, TrainResult, train
from embattle.training import Progress as TrainProgress

# Length of the first page, which these figures do not depend on: 1 % of a named set's gallery is more.
_K = 10
# Settings that are in the name of a checkpoint anyway, or in that of no checkpoint.
_NAMED = {"network", "network_args", "loss", "similarity", "epochs", "seed", "threads", "device"}
_OF_DEFENSE = ("defense", "eps", "steps", "precision")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A protocol at a scale, with its data; models are made or loaded when the first unit needs them.

    Args:
        protocol: what is studied.
        scale: how much of it.
        pictures: what models are trained on.
        gallery: what is searched, and attacked.
        models: folder of checkpoints.
        device: where models are trained and attacked.
        folder: the run's store, once it is open.
    """

    protocol: Protocol
    scale: Scale
    pictures: ImageSet
    gallery: ImageSet
    models: Path
    device: torch.device
    folder: Callable[[], LocalStore]
    _subjects: dict[tuple[str, int], Subject] = field(default_factory=dict)

    def training(self, name: str, seed: int) -> TrainConfig:
        """How a model is trained; the thread count is fixed, because it is part of what a model is."""
        model = self.protocol.models[name]
        defended = "defense" in model.training
        given = {"epochs": self.scale.epochs, **model.training, **(self.scale.hardening if defended else {})}
        fitting = networks.arguments_for(model.network, self.pictures.channels, self.pictures.images.shape[2])
        settings = {
            **given, "network": model.network, "network_args": {**fitting, **given.get("network_args", {})},
            "seed": seed + model.shift, "device": "cpu" if self.device.type == "cpu" else str(self.device),
        }  # fmt: skip
        if defended:
            return HardenConfig.parse({**settings, "fresh": not model.start})
        return TrainConfig.parse(settings)

    @property
    def numerics(self) -> dict[str, Any]:
        """What figures of this study agree to the last digit under."""
        return numerics(kind_of_device(self.device))

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """Everything that changes a number; neither paths nor the paper's figures."""
        return {
            "protocol": self.protocol.name, "numerics": self.numerics,
            "models": {name: self.identity(name, 0) for name in self.protocol.models},
            "scale": {"attacked": self.scale.attacked, "epochs": self.scale.epochs, "seeds": list(self.scale.seeds)},
            "pictures": self.pictures.fingerprint, "gallery": self.gallery.fingerprint,
            "columns": list(dict.fromkeys(column.attack for column in self.protocol.columns)),
            "eps": list(self.protocol.eps),
            "attacks": attack_names(self.protocol.eps, self.protocol.columns, self.protocol.steps),
            **({"targets": self.scale.targets} if any(map(shares, self.protocol.columns)) else {}),
        }  # fmt: skip

    def identity(self, name: str, seed: int) -> Mapping[str, Any]:
        """A model's training, and that of what it starts from. Two cards of one kind train alike: neither is named."""
        config = {**self.training(name, seed).model_dump(mode="json"), "device": kind_of_device(self.device)}
        start = self.protocol.models[name].start
        return {**config, "start": self.identity(start, seed)} if start else config

    def checkpoint(self, name: str, seed: int) -> Path:
        """Where the model of a seed lives; protocols with the same training share it."""
        config = self.training(name, seed)
        parts = [self.protocol.data, config.network, config.loss, config.similarity, f"{config.epochs}epochs"]
        if self.scale.training_pictures is not None:
            parts.append(f"{len(self.pictures)}pictures")
        if self.scale.size is not None:
            parts.append(f"{self.scale.size}px")
        # Another device rounds otherwise, so it trains a model of its own beside the shared one.
        if self.device.type != "cpu":
            parts.append(config.device.replace(":", ""))
        parts += self._departures(name, config)
        return self.models / f"{'-'.join(map(str, parts))}-seed{config.seed}.safetensors"

    def _departures(self, name: str, config: TrainConfig) -> list[str]:
        """What tells a training from the plain one, as far as the rest of the file's name does not say it."""
        model = self.protocol.models[name]
        told = [f"{key}{value}" for key, value in model.training.get("network_args", {}).items()]
        basic = {"network": config.network, "loss": config.loss, "similarity": config.similarity}
        if isinstance(config, HardenConfig):
            told += [config.defense, f"eps{config.eps:.3g}", f"{config.steps}steps"]
            told += [] if config.precision == "float32" else [config.precision]
            basic |= {key: getattr(config, key) for key in _OF_DEFENSE} | {"fresh": config.fresh}
        default = type(config).parse(basic).model_dump()
        for key, value in config.model_dump().items():
            if key not in _NAMED and value != default[key]:
                told.append(f"{key.replace('_', '')}{f'{value:.4g}' if isinstance(value, float) else value}")
        return [*told, *([f"from-{model.start}"] if model.start else [])]

    def train(self, name: str, seed: int, progress: Callable[[TrainProgress], None] | None = None) -> TrainResult:
        """Trains the model of a seed, or reads it where it is there already."""
        config, path = self.training(name, seed), self.checkpoint(name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(config, HardenConfig):
            return train(config, self.pictures, path, progress=progress, evaluate=self.gallery)
        start = self.protocol.models[name].start
        assert config.network is not None
        return harden(
            config, self.embedder(start, seed) if start else None, self.pictures, path, progress=progress,
            evaluate=self.gallery, model_file=NetworkFile(network=config.network, network_args=config.network_args),
        )  # fmt: skip

    def embedder(self, name: str, seed: int) -> Embedder:
        """The model of a seed, the one that this run trained."""
        if not self.checkpoint(name, seed).is_file():
            # Moved away or deleted since it was trained: the same training gives the same model.
            self.train(name, seed)
        embedder = load_checkpoint(self.checkpoint(name, seed))
        self._check_model(name, seed, embedder.fingerprint)
        embedder.module.to(self.device)
        return embedder

    def subject(self, name: str, seed: int) -> Subject:
        """The gallery embedded by the model of a seed; one seed's models are held at a time."""
        if (name, seed) not in self._subjects:
            embedder = self.embedder(name, seed)
            for other in [held for held in self._subjects if held[1] != seed]:
                del self._subjects[other]
            self._subjects[name, seed] = Subject.of(embedder, self.gallery, k=_K, keep_own=True)
        return self._subjects[name, seed]

    def _check_model(self, name: str, seed: int, fingerprint: str) -> None:
        store = self.folder()
        for unit in store.done():
            if store.unit(unit).kind != "train":
                continue
            for row in store.rows(unit):
                if (row["name"], row["seed"]) == (name, seed) and row["model"] != fingerprint:
                    raise RunMismatch(
                        f"{self.checkpoint(name, seed)} is not the model that this run trained; put that one back, or "
                        f"delete the run folder"
                    )

    def attacked(self, seed: int) -> tuple[str, ...]:
        """Ids of the pictures attacked under a seed; other ones for every seed."""
        order = rng.generator(seed, "attacked", self.gallery.fingerprint).permutation(len(self.gallery))
        return chosen(self.gallery.ids, order.tolist(), self.scale.attacked)

    def samples(self, column: Column, seed: int) -> tuple[str, ...]:
        """What a column attacks under a seed: pictures, or for universal perturbations the numbers of targets."""
        return tuple(map(str, range(self.scale.targets))) if shares(column) else self.attacked(seed)

    def crossing(self, column: Column) -> tuple[str, str]:
        """On which model a column's pictures are crafted, and on which they are judged."""
        return column.crafted_on or self.protocol.first, column.judged_on or self.protocol.first
