"""The trainer: it learns, the same call gives the same bytes, and it leaves its surroundings alone."""

import builtins
import importlib
import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from embattle import embedders
from embattle.data import load
from embattle.errors import ConfigError, DataError, InputError, MissingDependency, ModelError, RunMismatch
from embattle.metrics import recall_at_k
from embattle.networks import NETWORKS
from embattle.training import TrainConfig, train
from embattle.training.state import state_path


@pytest.mark.parametrize("loss", ["triplet", "contrastive"])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_learns_to_tell_classes_apart(loss, similarity, pictures, make_stripes, small, tmp_path):
    config = small(loss=loss, similarity=similarity, epochs=6)
    result = train(config, pictures, tmp_path / "m.safetensors", evaluate=make_stripes(seed=9, name="fresh"))
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.recall.value > 0.95
    assert result.recall.n == 60
    assert result.recall.ci[0] < result.recall.value


def test_the_same_call_gives_the_same_bytes_and_another_seed_does_not(pictures, small, tmp_path):
    torch.manual_seed(1)
    one = train(small(), pictures, tmp_path / "one.safetensors").path.read_bytes()
    torch.manual_seed(2)
    torch.rand(7)
    assert train(small(), pictures, tmp_path / "two.safetensors").path.read_bytes() == one
    assert train(small(seed=1), pictures, tmp_path / "three.safetensors").path.read_bytes() != one


@pytest.mark.parametrize("stop", [False, True])
def test_surroundings_are_as_before_also_after_an_exception(stop, pictures, small, tmp_path):
    def progress(step):
        torch.rand(3)
        if stop:
            raise RuntimeError("stop here")

    threads = torch.get_num_threads()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError, match="stop here") if stop else nullcontext():
        train(small(threads=threads + 1), pictures, tmp_path / "m.safetensors", progress=progress)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    # A second call finds the run finished (or resumes it) and must leave the state alone as well.
    train(small(threads=threads + 1), pictures, tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_names_every_batch(pictures, small, tmp_path):
    seen = []
    train(small(epochs=2), pictures, tmp_path / "m.safetensors", progress=seen.append)
    # 60 pictures in batches of at most 25: three of twenty.
    assert [(step.epoch, step.batch) for step in seen] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert {(step.epochs, step.batches) for step in seen} == {(2, 3)}
    assert all(step.loss >= 0 for step in seen)
    assert seen[0].loss > 0


def test_the_checkpoint_carries_its_configuration_and_is_in_eval_mode(pictures, small, tmp_path):
    result = train(small(similarity="euclidean"), pictures, tmp_path / "sub" / "m.safetensors")
    assert not any(module.training for module in result.embedder.module.modules())
    again = embedders.load(f"checkpoint:{result.path}")
    assert (again.channels, again.size, again.similarity.name) == (1, (16, 16), "euclidean")
    assert torch.equal(again.embed(pictures.images), result.embedder.embed(pictures.images))
    training = embedders.read_meta(result.path)["training"]
    assert TrainConfig.parse(training["config"]) == small(similarity="euclidean")
    assert training["data_fingerprint"] == pictures.fingerprint
    lines = [json.loads(line) for line in (tmp_path / "sub" / "m.history.jsonl").read_text().splitlines()]
    assert lines == list(result.history)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["m.history.jsonl", "m.safetensors"]


def test_a_first_step_is_adams_on_the_loss_of_the_drawn_batch(pictures, small, tmp_path):
    # Adam's first step moves a weight by lr · sign(gradient) (to 1e-8 / |gradient|): none may move further than lr.
    config = small(epochs=1, batch_size=60, lr=1e-3, weight_decay=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        start = NETWORKS["small"].build(**config.network_args)
    trained = train(config, pictures, tmp_path / "m.safetensors").embedder.module
    moved = torch.cat(
        [(b - a).abs().flatten() for a, b in zip(start.parameters(), trained.parameters(), strict=True)]
    ).detach()
    assert moved.max() <= 1e-3 * (1 + 1e-3)
    assert (moved > 0.9e-3).double().mean() > 0.5


def test_a_loss_that_is_not_finite_stops_with_the_last_good_epoch_kept(pictures, small, tmp_path, monkeypatch):
    from embattle.training.losses.triplet import Triplet

    whole, calls = Triplet.__call__, []

    def breaks(self, embeddings, labels, rng):
        calls.append(1)
        loss = whole(self, embeddings, labels, rng)
        return loss * float("nan") if len(calls) == 8 else loss

    monkeypatch.setattr(Triplet, "__call__", breaks)
    out = tmp_path / "m.safetensors"
    with pytest.raises(ModelError, match=r"loss became nan in batch 2 of epoch 3; lower the learning rate \(it is 0.003"):
        train(small(), pictures, out)
    assert not out.exists()
    assert state_path(out).exists()
    assert len((tmp_path / "m.history.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr(Triplet, "__call__", whole)
    resumed = train(small(), pictures, out)
    assert resumed.resumed_after == 2
    assert out.read_bytes() == train(small(), pictures, tmp_path / "other.safetensors").path.read_bytes()


def test_a_learning_rate_far_too_high_is_a_sentence(pictures, small, tmp_path):
    with pytest.raises(ModelError, match="lower the learning rate"):
        train(small(lr=1e6, epochs=5), pictures, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_collapsed_model_is_reported(pictures, small, tmp_path, monkeypatch):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.bias.expand(len(x), 4)

    monkeypatch.setattr("embattle.networks.build", lambda name, **arguments: Constant())
    with pytest.raises(ModelError, match=r"after epoch 1 of training, .*collapsed.*nothing was kept"):
        train(small(), pictures, tmp_path / "m.safetensors")


def test_tensorboard_scalars_are_written_where_asked(pictures, small, tmp_path):
    event_accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    result = train(small(), pictures, tmp_path / "m.safetensors", evaluate=pictures, tensorboard=tmp_path / "tb")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (row["epoch"], pytest.approx(row["loss"])) for row in result.history
    ]
    assert events.Scalars("train/recall_at_1")[0].value == pytest.approx(result.recall.value)


def test_tensorboard_that_is_missing_matters_only_when_asked_for(pictures, small, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"embattle\[tensorboard\]"):
        train(small(), pictures, tmp_path / "m.safetensors", tensorboard=tmp_path / "tb")
    assert train(small(epochs=1), pictures, tmp_path / "m.safetensors").path.exists()


def test_bad_input_is_a_sentence(pictures, make_stripes, small, tmp_path):
    out = tmp_path / "m.safetensors"
    with pytest.raises(ConfigError, match=r"write --out m.safetensors"):
        train(small(), pictures, tmp_path / "m.pt")
    with pytest.raises(DataError, match="no labels"):
        train(small(), replace(pictures, labels=None), out)
    with pytest.raises(DataError, match=r"has 1 class\(es\)"):
        train(small(), make_stripes(classes=1), out)
    with pytest.raises(DataError, match=r"cannot take pictures of shape \(1, 16, 16\)"):
        train(small(network_args={"size": 24}), pictures, out)
    with pytest.raises(ConfigError, match="write device='cpu'"):
        train(small(device="nowhere"), pictures, out)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        train(small(), pictures, tmp_path / "file" / "m.safetensors")


def test_another_configuration_does_not_overwrite(pictures, make_stripes, small, tmp_path):
    out = tmp_path / "m.safetensors"
    before = train(small(epochs=1), pictures, out).path.read_bytes()
    for config, data in ((small(epochs=2), pictures), (small(epochs=1), make_stripes(seed=4))):
        with pytest.raises(RunMismatch, match="--no-resume"):
            train(config, data, out)
    assert out.read_bytes() == before
    again = train(small(epochs=1), pictures, out, evaluate=pictures)
    assert (again.resumed_after, len(again.history)) == (1, 1)
    assert again.recall.n == 60
    assert train(small(epochs=2), pictures, out, resume=False).path.read_bytes() != before


def test_the_demonstration_model_learns_the_digits(tmp_path):
    config = TrainConfig(network="small", epochs=4, batch_size=128, lr=2e-3)
    result = train(config, load("digits", split="train"), tmp_path / "m.safetensors")
    test = load("digits", split="test")
    assert recall_at_k(result.embedder.embed(test.images), test.labels, result.embedder.similarity).figure.value >= 0.95
