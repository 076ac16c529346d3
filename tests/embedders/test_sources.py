"""module: and hf: models, and what is said when a specification names nothing."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from embattle.attacks import pgd
from embattle.attacks.objectives import Match
from embattle.budget import Linf
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
    ],
)
def test_a_model_that_cannot_be_made_is_named(spec, sentence):
    with pytest.raises(ModelError, match=sentence):
        load(spec)


@pytest.mark.parametrize("spec", ["resnet50", "onnxx:model", "module:", ":x", ""])
def test_an_unknown_source_lists_the_known_ones(spec):
    with pytest.raises(ConfigError, match=r"is not understood; write one of checkpoint:\.\.\., hf:\.\.\., module:\.\.\."):
        load(spec)


def test_every_source_is_described():
    assert {entry.name for entry in ADAPTERS} >= {"checkpoint", "module", "hf"}
    assert all(entry.summary and entry.access == "gradient" for entry in ADAPTERS)


# transformers -----------------------------------------------------------------------------------------------------------
SIDE = 16
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def _vit(transformers):
    return transformers.ViTModel(transformers.ViTConfig(**SMALL, image_size=SIDE, patch_size=8))


def _clip(transformers):
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8}
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 4}
    return transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6))


def _clip_vision(transformers):
    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**SMALL, image_size=SIDE, patch_size=8, projection_dim=6)
    )


def _dinov2(transformers):
    return transformers.Dinov2Model(
        transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=8)
    )


def _resnet(transformers):
    return transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], num_channels=3)
    )


# The model, its expected embedding of normalised pixels, and the embedding's length.
MODELS = {
    "vit": (_vit, lambda m, x: m(pixel_values=x).pooler_output, 16),
    "clip": (_clip, lambda m, x: m.visual_projection(m.vision_model(pixel_values=x).pooler_output), 6),
    "clip vision": (_clip_vision, lambda m, x: m(pixel_values=x).image_embeds, 6),
    "dinov2": (_dinov2, lambda m, x: m(pixel_values=x).last_hidden_state[:, 0], 16),
    "resnet": (_resnet, lambda m, x: m(pixel_values=x).pooler_output.flatten(1), 8),
}
PROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


@pytest.fixture(scope="module")
def transformers():
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield importlib.import_module("transformers")
    patch.undo()


@pytest.fixture(scope="module")
def folders(transformers, tmp_path_factory):
    made = {}
    for name, (build, _, _) in MODELS.items():
        torch.manual_seed(2)
        model, folder = build(transformers).eval(), tmp_path_factory.mktemp(name.replace(" ", "-"))
        model.save_pretrained(folder)
        size = {"shortest_edge": SIDE} if "clip" in name else {"height": SIDE, "width": SIDE}
        (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "size": size}))
        made[name] = (folder, model)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_a_transformers_model_gives_its_own_embedding_with_its_own_preprocessing(folders, name):
    folder, model = folders[name]
    member = load(f"hf:{folder}")
    assert (member.channels, member.size) == (3, (SIDE, SIDE))
    assert member.mean == pytest.approx((0.1, 0.2, 0.3))
    x = torch.rand(2, 3, SIDE, SIDE)
    normalised = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    with torch.no_grad():
        expected = MODELS[name][1](model, normalised)
    found = member(x)
    assert found.shape == (2, MODELS[name][2])
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_processor_of_transformers_itself_agrees(transformers, folders):
    folder, _ = folders["vit"]
    processor = transformers.ViTImageProcessor(**{**PROCESSOR, "size": {"height": SIDE, "width": SIDE}})
    picture = (np.random.default_rng(0).uniform(0, 256, (SIDE, SIDE, 3))).astype(np.uint8)
    theirs = torch.as_tensor(np.asarray(processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]))
    ours = load(f"hf:{folder}")._prepared(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "clip", "resnet"])
def test_a_transformers_model_can_be_attacked(folders, name):
    member = load(f"hf:{folders[name][0]}")
    x = torch.rand(2, 3, 20, 20)
    result = pgd(budget=Linf(8 / 255), steps=3)(member, x, Match(target=1 - x), tile=2)
    with torch.no_grad():
        before = member.similarity.pair(member(x), member(1 - x))
    assert (result.loss >= before - 1e-6).all()
    assert (result.loss > before + 1e-4).any()
    assert not result.non_finite.any()


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (None, {"size": (16, 16), "mean": None}),
        (
            {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 12},
            {"size": (12, 12), "mean": None},
        ),
        ({"crop_size": {"height": 10, "width": 14}, "size": {"shortest_edge": 99}}, {"size": (10, 14), "mean": None}),
        ({"size": {"longest_edge": 30}}, {"size": (16, 16), "mean": None}),
    ],
    ids=["none", "plain size", "crop", "longest edge"],
)
def test_preprocessing_comes_from_the_processor_else_from_the_model(folders, tmp_path, processor, expected):
    folder = tmp_path / "vit"
    folder.mkdir()
    for file in folders["vit"][0].iterdir():
        if file.name != "preprocessor_config.json":
            (folder / file.name).write_bytes(file.read_bytes())
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    member = load(f"hf:{folder}")
    assert {"size": member.size, "mean": member.mean} == expected
    assert load(f"hf:{folder}", size=24, similarity="euclidean").size == (24, 24)


def test_pickled_weights_are_not_loaded(folders, tmp_path):
    folder, model = folders["vit"]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="could not be loaded"):
        load(f"hf:{tmp_path}")


@pytest.mark.parametrize("damage", ["cut", "config", "type", "processor"])
def test_a_damaged_folder_is_named(folders, tmp_path, damage):
    for file in folders["vit"][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "config":
        config.write_text("{not json")
    elif damage == "type":
        config.write_text(json.dumps({"model_type": "no_such_model"}))
    else:
        (tmp_path / "preprocessor_config.json").write_text("{not json")
    with pytest.raises(ModelError, match=r"hf:.* could not be"):
        load(f"hf:{tmp_path}")


def test_a_classifier_without_pooler_gives_its_first_token(transformers, tmp_path):
    # Its file has no pooler; the one that transformers would make up is random.
    torch.manual_seed(2)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, image_size=SIDE, patch_size=8)).eval()
    model.save_pretrained(tmp_path)
    member, x = load(f"hf:{tmp_path}"), torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(member(x), load(f"hf:{tmp_path}")(x))
    with torch.no_grad():
        torch.testing.assert_close(member(x), model.vit(pixel_values=x).last_hidden_state[:, 0])


def test_weights_that_are_missing_from_the_file_are_not_made_up(folders, tmp_path):
    # A model that is completed with random numbers would be audited as if it were the user's.
    import safetensors.torch

    for file in folders["vit"][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    dropped = next(name for name in weights if "layernorm" in name.lower() and name.endswith("weight"))
    weights.pop(dropped)
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks"):
        load(f"hf:{tmp_path}")
