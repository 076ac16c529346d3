"""Fingerprints change with the weights, the structure and the preprocessing, and with nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from embattle.embedders import Embedder


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())


BASE = {"channels": 1, "mean": (0.5,), "std": (0.5,), "size": 8, "similarity": "cosine"}


def test_equal_models_have_equal_fingerprints_whatever_their_mode_and_name():
    first, second = Embedder(network(), **BASE), Embedder(network().eval(), name="another", **BASE)
    assert first.fingerprint == second.fingerprint
    first(torch.rand(2, 1, 8, 8))
    assert first.fingerprint == second.fingerprint, "using it changed it"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[0].weight.data.view(-1)[3].add_(1e-6),
        lambda m: m[1].running_mean.add_(0.1),
        lambda m: m.__setitem__(2, nn.Tanh()),
        lambda m: m.half(),
    ],
    ids=["one weight", "a buffer", "an activation", "precision"],
)
def test_the_fingerprint_changes_with_the_model(change):
    other = network()
    change(other)
    assert Embedder(other, **BASE).fingerprint != Embedder(network(), **BASE).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[0].weight.mul_(1.01),
        lambda m: m.load_state_dict({key: value * 2 for key, value in m.state_dict().items()}),
        lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight + 1)),
        lambda m: m.__setitem__(2, nn.Tanh()),
        lambda m: m[0].weight.data.view(-1)[3].add_(1e-6),
        lambda m: m[4].weight.data.view(-1)[70_000].add_(1e-6),
        lambda m: m[4].weight.data.copy_(m[4].weight.data.flip(0)),
        lambda m: m[4].weight.detach().numpy().__setitem__((5, 6), 0.5),
        lambda m: m[4].weight.data.neg_(),
        lambda m: m[4].weight.data[:, 1::2].neg_(),
        lambda m: m[5].weight.data.neg_(),
        lambda m: m[1].num_batches_tracked.data.add_(1),
    ],
    ids=[
        "written to", "loaded", "exchanged", "another layer", "past autograd", "past autograd in a large layer",
        "past autograd in another order", "through numpy", "every sign", "every other sign",
        "every sign of long words", "a counter",
    ],
)  # fmt: skip
def test_a_fingerprint_that_was_asked_for_is_not_kept_when_the_model_changes(change):
    member = Embedder(nn.Sequential(*network(), nn.Linear(72, 1024), nn.Linear(1024, 4).double()), **BASE)
    before = member.fingerprint
    with torch.no_grad():
        change(member.module)
    assert member.fingerprint != before
    assert member.fingerprint == Embedder(member.module, **BASE).fingerprint


def test_a_number_in_the_forward_code_counts():
    def scaled(by: str) -> nn.Module:
        names: dict = {"nn": nn}
        exec(f"class Scaled(nn.Flatten):\n def forward(self, x): return super(type(self), self).forward(x) * {by}", names)
        return names["Scaled"]()

    def inner(by: str) -> nn.Module:
        names: dict = {"nn": nn}
        exec(f"class Inner(nn.Module):\n def forward(self, x): return (lambda y: y * {by})(x.flatten(1))", names)
        return names["Inner"]()

    for make in (scaled, inner):
        assert Embedder(make("2.0")).fingerprint == Embedder(make("2.0")).fingerprint
        assert Embedder(make("2.0")).fingerprint != Embedder(make("3.0")).fingerprint


@pytest.mark.parametrize(
    "setting", [{"mean": (0.4,)}, {"std": (0.4,)}, {"size": 9}, {"size": None}, {"similarity": "euclidean"}, {"mean": None}]
)
def test_the_fingerprint_changes_with_the_preprocessing(setting):
    assert Embedder(network(), **{**BASE, **setting}).fingerprint != Embedder(network(), **BASE).fingerprint
