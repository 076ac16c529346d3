"""module: models, and what is said when a specification names nothing."""

from __future__ import annotations

import pytest
import torch

from embattle.embedders import ADAPTERS, load
from embattle.errors import ConfigError, ModelError

FACTORIES = """
import torch
from torch import nn
from embattle.embedders import Embedder

def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

def embedder():
    return Embedder(network(), channels=1, mean=(0.5,), similarity="euclidean")

def nothing():
    return None
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "my_models_for_tests.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "my_models_for_tests", raising=False)


@pytest.mark.usefixtures("factories")
def test_a_factory_of_a_module_is_wrapped():
    member = load("module:my_models_for_tests:network", channels=1, size=8, similarity="euclidean")
    assert (member.name, member.channels, member.size, member.similarity.name) == ("network", 1, (8, 8), "euclidean")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(member(x), member.module(x))


@pytest.mark.usefixtures("factories")
def test_a_factory_may_return_an_embedder():
    assert load("module:my_models_for_tests:embedder").mean == (0.5,)
    with pytest.raises(ConfigError, match="owns its preprocessing; leave out: size"):
        load("module:my_models_for_tests:embedder", size=8)


@pytest.mark.usefixtures("factories")
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("module:my_models_for_tests:netwrok", "my_models_for_tests has no 'netwrok'"),
        ("module:my_models_for_testz:network", "cannot import 'my_models_for_testz'"),
        ("module:my_models_for_tests:nothing", "returned a NoneType; return a torch.nn.Module or an Embedder"),
        ("module:my_models_for_tests", "names no factory; write module:package.module:factory"),
        ("hf:nowhere", "no folder with a config.json"),
        ("timm:nowhere", "'nowhere' is neither a folder nor an architecture of timm"),
        ("onnx:nowhere.onnx", "there is no such file; write one with torch.onnx.export"),
    ],
)
def test_a_model_that_cannot_be_made_is_named(spec, sentence):
    with pytest.raises(ModelError, match=sentence):
        load(spec)


@pytest.mark.parametrize("spec", ["resnet50", "onnxx:model", "module:", "timm:", ":x", ""])
def test_an_unknown_source_lists_the_known_ones(spec):
    with pytest.raises(ConfigError, match=r"is not understood; write one of checkpoint:\.\.\., hf:\.\.\., module:\.\.\."):
        load(spec)


def test_every_source_is_described():
    assert {entry.name for entry in ADAPTERS} == {"checkpoint", "module", "hf", "timm", "onnx", "weights"}
    assert all(entry.summary and entry.access == "gradient" for entry in ADAPTERS)
