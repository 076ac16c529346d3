"""Checkpoints carry all that is needed to use a model, and loading one never executes anything."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from embattle import networks
from embattle.embedders import Embedder, load, load_checkpoint, read_meta, save_checkpoint
from embattle.errors import ConfigError, InputError, ModelError

NETWORK = "c2f1"


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return networks.build(NETWORK)


def saved(path, module, **changes):
    settings = {
        "network": NETWORK,
        "network_args": {},
        "similarity": "euclidean",
        "channels": 1,
        "size": (28, 28),
        "mean": (0.1,),
        "std": (0.3,),
    }
    return save_checkpoint(path, module, **{**settings, **changes})


def test_loading_draws_nothing_from_the_caller(trained, tmp_path):
    path = saved(tmp_path / "x.safetensors", trained)
    state = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_was_saved_is_what_is_loaded(trained, tmp_path):
    path = saved(tmp_path / "deep" / "model.safetensors", trained, training={"epochs": 8})
    original = Embedder(trained, channels=1, size=28, mean=(0.1,), std=(0.3,), similarity="euclidean")
    again = load(f"checkpoint:{path}")
    x = torch.rand(3, 1, 20, 20)
    assert torch.equal(again(x), original(x))
    assert again.fingerprint == original.fingerprint
    assert (again.similarity.name, again.channels, again.size, again.mean, again.std) == (
        "euclidean",
        1,
        (28, 28),
        (0.1,),
        (0.3,),
    )
    assert again.name == "c2f1 (model)"
    assert read_meta(path)["training"] == {"epochs": 8}


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_behind(trained, tmp_path):
    first = saved(tmp_path / "a.safetensors", trained).read_bytes()
    saved(tmp_path / "a.safetensors", trained)
    assert (tmp_path / "a.safetensors").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_named(trained, tmp_path, share):
    whole = saved(tmp_path / "whole.safetensors", trained).read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"cut\.safetensors is not a readable safetensors file.*cut off or damaged"):
        load_checkpoint(path)


def test_weights_of_somebody_else_are_named(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.rand(2, 2)}, path)
    with pytest.raises(ModelError, match=r"holds weights but not which network they belong to.*module:"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "meta",
    [
        "not json",
        "[1, 2]",
        "{}",
        '{"format": "embattle.checkpoint/9"}',
        '{"format": "embattle.checkpoint/1"}',
        '{"format": "embattle.checkpoint/1", "network": "c2f1"}',
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(tmp_path, meta):
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({"weight": torch.rand(2, 2)}, path, metadata={"embattle": meta})
    with pytest.raises(ModelError, match=r"odd\.safetensors"):
        load_checkpoint(path)


def test_an_unknown_network_is_named(trained, tmp_path):
    path = saved(tmp_path / "x.safetensors", trained, network="c2f3")
    with pytest.raises(ConfigError, match=r"'c2f3'.*did you mean c2f"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_the_network_are_named(tmp_path):
    path = saved(tmp_path / "x.safetensors", nn.Linear(3, 3))
    with pytest.raises(ModelError, match=r"weights in .* do not fit network 'c2f1'"):
        load_checkpoint(path)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_a_pickle_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"pickle": pickle.dumps(Bomb()), "torch": None}.items():
        path = tmp_path / f"{name}.safetensors"
        if content is None:
            torch.save({"weight": Bomb()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(ModelError, match="not a readable safetensors file"):
            load(f"checkpoint:{path}")
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelError, match=r"no checkpoint file at .*embattle train --out"):
        load(f"checkpoint:{tmp_path / 'none.safetensors'}")


def test_preprocessing_beside_a_checkpoint_is_refused(trained, tmp_path):
    path = saved(tmp_path / "x.safetensors", trained)
    with pytest.raises(ConfigError, match="carries its own preprocessing; leave out: mean, size"):
        load(f"checkpoint:{path}", size=3, mean=(0.5,))


def test_a_folder_that_cannot_be_written_to_is_named(trained, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"Cannot write .*x\.safetensors"):
        saved(tmp_path / "file" / "x.safetensors", trained)


def test_the_configuration_is_readable_without_embattle(trained, tmp_path):
    path = saved(tmp_path / "x.safetensors", trained)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["embattle"])["network"] == "c2f1"
