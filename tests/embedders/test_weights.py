"""weights:FILE@MODEL — a model of another source with the weights of a file, which cannot choose what is loaded."""

from __future__ import annotations

import json
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from embattle.embedders import Embedder, load, load_weights, save_checkpoint, save_weights
from embattle.embedders.weights import weights_training
from embattle.errors import ConfigError, ModelError
from embattle.networks import build

FACTORY = """
import torch
from torch import nn
from embattle.embedders import Embedder

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.norm = nn.Flatten(), nn.BatchNorm1d(12)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.norm(self.first(self.flat(x))))

def tied():
    torch.manual_seed(3)
    return Embedder(Tied(), channels=3, size=2, mean=(0.4,) * 3, std=(0.2,) * 3, similarity="euclidean")

def bare():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
"""
TIED, BARE = "module:models_of_weights_tests:tied", "module:models_of_weights_tests:bare"


@pytest.fixture(autouse=True)
def _factory(tmp_path, monkeypatch):
    (tmp_path / "models_of_weights_tests.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "models_of_weights_tests", raising=False)


@pytest.fixture
def changed():
    """The tied model with other weights and other running statistics."""
    member = load(TIED)
    with torch.no_grad():
        for parameter in member.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
        member.module.norm.running_mean.add_(0.3)
        member.module.norm.num_batches_tracked.add_(7)
    return member


def test_embeddings_are_the_same_to_the_last_bit(changed):
    save_weights("hard.safetensors", changed, {"digest": "d"})
    again, base = load(f"weights:hard.safetensors@{TIED}"), load(TIED)
    x = torch.rand(5, 3, 4, 4)
    assert torch.equal(again.embed(x), changed.embed(x))
    assert not torch.equal(again.embed(x), base.embed(x))
    assert again.module.second.weight is again.module.first.weight
    assert (again.mean, again.size, again.similarity.name) == (changed.mean, changed.size, "euclidean")
    assert weights_training("hard.safetensors") == {"digest": "d"}


def test_its_fingerprint_is_that_of_the_model_that_was_saved(changed):
    before = load(TIED).fingerprint
    save_weights("hard.safetensors", changed)
    again = load(f"weights:hard.safetensors@{TIED}")
    assert again.fingerprint == changed.fingerprint != before
    assert again.name == f"{changed.name} (hard)"
    base = load(TIED)
    load_weights("hard.safetensors", base)
    assert base.fingerprint == before


def test_preprocessing_goes_to_the_model(tmp_path):
    save_weights("b.safetensors", load(BARE, channels=3))
    assert load(f"weights:b.safetensors@{BARE}", size=2, similarity="euclidean").size == (2, 2)
    with pytest.raises(ConfigError, match="owns its preprocessing; leave out: size"):
        load(f"weights:b.safetensors@{TIED}", size=2)


def test_paths_may_hold_an_at_and_a_colon(changed, tmp_path):
    for name in ("a@b.safetensors", "a@hf.safetensors", "hf:x.safetensors", "two words.safetensors"):
        save_weights(tmp_path / name, changed)
        assert load(f"weights:{name}@{TIED}").fingerprint == changed.fingerprint


@pytest.mark.parametrize("spec", ["hard.safetensors", "hard.safetensors@", "@hf:x", "hard.safetensors@nothing:x", "a@hf:",
                                  "hard.safetensors@weights:x@hf:y"])  # fmt: skip
def test_a_specification_without_a_model_is_no_model(spec):
    with pytest.raises((ConfigError, ModelError)) as raised:
        load(f"weights:{spec}")
    assert "weights:FILE@MODEL" in str(raised.value) or "hf:" in str(raised.value)


def edited(file, **changes):
    """The file's tensors with some replaced, or left out where None, under its own description."""
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = safetensors.torch.load_file(file)
    tensors = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
    safetensors.torch.save_file(tensors, file, metadata)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"norm.running_mean": None}, r"it has norm.running_mean of shape \(12,\), the file none"),
        ({"first.bias": torch.zeros(13)}, r"it has first.bias of shape \(12,\), the file \(13,\)"),
        ({"first.weight": torch.zeros(12, 11)}, r"first.weight of shape \(12, 12\), the file \(12, 11\)"),
        ({"extra": torch.zeros(2)}, r"it has extra of shape none, the file \(2,\)"),
    ],
)
def test_weights_of_another_shape_are_named(changed, changes, sentence):
    save_weights("hard.safetensors", changed)
    edited("hard.safetensors", **changes)
    with pytest.raises(ModelError, match=f"do not fit .*{sentence}"):
        load(f"weights:hard.safetensors@{TIED}")


def test_weights_of_another_model_are_refused(changed):
    save_weights("hard.safetensors", changed)
    with pytest.raises(ModelError, match=r"the weights in hard\.safetensors do not fit"):
        load(f"weights:hard.safetensors@{BARE}")


def test_files_that_are_none_of_ours_are_refused(changed, tmp_path):
    with pytest.raises(ModelError, match=r"there is no file of weights at gone\.safetensors"):
        load(f"weights:gone.safetensors@{TIED}")
    with pytest.raises(ModelError, match="there is no file of weights"):
        load(f"weights:.@{TIED}")
    state = changed.module.state_dict()
    safetensors.torch.save_file({name: value.clone() for name, value in state.items()}, "alien.safetensors")
    with pytest.raises(ModelError, match="has the format None"):
        load(f"weights:alien.safetensors@{TIED}")
    for content in ("null", "[]", '{"format": 3}', '{"format": "embattle.weights/1"}', "{"):
        safetensors.torch.save_file(
            {name: value.clone() for name, value in state.items()}, "odd.safetensors", {"embattle": content}
        )
        with pytest.raises(ModelError, match=r"odd.safetensors (has the format|is not a readable)"):
            load(f"weights:odd.safetensors@{TIED}")
    arguments = {"size": 16, "width": 4, "dimension": 8}
    save_checkpoint(tmp_path / "c.safetensors", build("small", **arguments), network="small", network_args=arguments,
                    similarity="cosine", channels=1, size=16)  # fmt: skip
    with pytest.raises(ModelError, match="load it with --model checkpoint:PATH"):
        load(f"weights:c.safetensors@{TIED}")


def test_a_cut_file_is_refused(changed, tmp_path):
    path = save_weights(tmp_path / "hard.safetensors", changed)
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="may be cut off or damaged"):
            load(f"weights:{path}@{TIED}")


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_a_pickle_is_not_opened(changed, tmp_path):
    for name, write in (
        ("p.safetensors", lambda path: path.write_bytes(pickle.dumps(Bomb()))),
        ("t.safetensors", lambda path: torch.save({"x": Bomb()}, path)),
        ("w.pt", lambda path: torch.save(changed.module.state_dict(), path)),
    ):
        write(tmp_path / name)
        with pytest.raises(ModelError, match="is not a readable safetensors file"):
            load(f"weights:{name}@{TIED}")
    assert not (tmp_path / "exploded").exists()


def test_a_file_does_not_name_what_is_imported(changed, tmp_path):
    path = save_weights(tmp_path / "hard.safetensors", changed, {"model": "module:os:getcwd"})
    with safetensors.safe_open(path, framework="pt") as opened:
        told = json.loads(opened.metadata()["embattle"])
    assert set(told) == {"format", "training"}


def test_what_is_not_saved_is_no_part_of_the_file():
    class Buffered(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.linear = nn.Linear(12, 4)
            self.register_buffer("shift", torch.full((4,), shift), persistent=False)

        def forward(self, x):
            return self.linear(x.flatten(1)) + self.shift

    saved, other = Embedder(Buffered(1.0)), Embedder(Buffered(2.0))
    save_weights("b.safetensors", saved)
    again = load_weights("b.safetensors", other)
    x = torch.rand(2, 3, 2, 2)
    assert torch.equal(again.embed(x), other.sharing_preprocessing(again.module).embed(x))
    assert again.fingerprint != saved.fingerprint
