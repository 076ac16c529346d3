"""What a finished training says of itself: embeddings that have nearly collapsed, batches that held one class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from embattle.data import ImageSet
from embattle.defenses import HardenConfig, harden
from embattle.embedders import Embedder
from embattle.errors import DataError
from embattle.training import TrainConfig, train
from embattle.vectors import spread


@pytest.fixture
def bands() -> ImageSet:
    """Noisy pictures of three classes."""
    labels = torch.arange(120) % 3
    x = 0.3 + 0.3 * torch.rand(120, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    for row, label in enumerate(labels.tolist()):
        x[row, 0, label] += 0.2
    return ImageSet(
        name="bands", images=(x * 255).round().to(torch.uint8), labels=labels, ids=tuple(f"bands/{i}" for i in range(120))
    )


@pytest.fixture
def model() -> Embedder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Embedder(nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.Tanh(), nn.Linear(16, 6)), channels=1)


def test_a_defense_that_nearly_collapses_says_so(bands, model, tmp_path):
    found = {}
    for defense in ("madry", "est"):
        settings = {"defense": defense, "eps": 0.3, "steps": 4, "epochs": 30, "batch_size": 60, "lr": 1e-2, "threads": 1}
        found[defense] = harden(HardenConfig.parse(settings), model, bands, tmp_path / f"{defense}.safetensors")
    collapsed = found["madry"]
    assert collapsed.history[-1]["spread"] == pytest.approx(spread(collapsed.embedder.embed(bands.images)), rel=1e-3)
    assert "has nearly collapsed" in str(collapsed)
    # What the file keeps is told again by whoever finds it finished.
    again = harden(HardenConfig.parse(settings | {"defense": "madry"}), model, bands, tmp_path / "madry.safetensors")
    assert again.resumed_after == 30
    assert again.warnings == collapsed.warnings
    assert found["est"].warnings == ()


def test_batches_of_one_class_are_skipped_and_counted(bands, model, tmp_path):
    rare = bands.take([*range(0, 120, 3), 1, 4])  # forty pictures of one class, two of another
    config = TrainConfig.parse({"network": None, "epochs": 2, "batch_size": 6, "threads": 1, "lr": 1e-4})
    result = train(config, rare, tmp_path / "m.safetensors", start=model)
    # Seven batches, of which at most two hold one of the two.
    assert all(5 <= row["skipped"] <= 6 for row in result.history)
    assert "were skipped" in str(result)


def test_an_epoch_without_any_batch_of_two_classes_is_refused(bands, model, tmp_path):
    config = TrainConfig.parse({"network": None, "epochs": 1, "batch_size": 2, "threads": 1})
    with pytest.raises(DataError, match=r"1 class\(es\).*larger batch_size"):
        train(config, bands.take([*range(0, 120, 3), 1, 4, 7, 10]), tmp_path / "m.safetensors", start=model)


def test_what_the_owner_froze_stays(bands, model, tmp_path):
    model.module[1].requires_grad_(False)
    config = HardenConfig.parse({"defense": "est", "steps": 1, "epochs": 1, "batch_size": 60, "threads": 1})
    kept = harden(config, model, bands, tmp_path / "part.safetensors").embedder
    assert torch.equal(kept.module[1].weight, model.module[1].weight)
    assert not torch.equal(kept.module[3].weight, model.module[3].weight)
    model.module.requires_grad_(False)
    whole = harden(config, model, bands, tmp_path / "whole.safetensors").embedder
    assert not torch.equal(whole.module[1].weight, model.module[1].weight)
