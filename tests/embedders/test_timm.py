"""timm: models: pooled features, timm's own preprocessing, and no weights that are not the user's."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from embattle.embedders import load
from embattle.errors import MissingDependency, ModelError


def built(timm, name, **arguments):
    torch.manual_seed(4)
    return timm.create_model(name, pretrained=False, num_classes=5, **arguments).eval()


# Architecture, arguments, and the length of its pooled features.
MODELS = {
    "test_vit": ({"img_size": 32}, 64),
    "test_resnet": ({}, 96),
    "test_convnext": ({}, 64),
    "test_efficientnet": ({}, 256),
}


@pytest.fixture(scope="module")
def saved(timm, tmp_path_factory):
    """Each model with a classifier of five classes, as timm saves it for sharing."""
    hub = importlib.import_module("timm.models")
    found = {}
    for name, (arguments, _) in MODELS.items():
        model, folder = built(timm, name, **arguments), tmp_path_factory.mktemp(name)
        hub.save_for_hf(model, folder, safe_serialization=True)
        found[name] = (folder, model)
    return found


class Seen(nn.Module):
    """Stands in for a model and keeps what it is shown."""

    def forward(self, x):
        self.pictures = x
        return x.flatten(1)


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_the_models_own_pooled_features(timm, saved, name):
    folder, model = saved[name]
    member = load(f"timm:{folder}")
    assert member.name == f"{name} ({folder.name})"
    member.module.fit = member.module.fit.__class__()  # pictures as they are: preprocessing has its own test
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (member.mean, member.std))
    with torch.no_grad():
        expected = model.forward_head(model.forward_features((x - mean) / std), pre_logits=True)
        found = member(x)
    assert found.shape == (2, MODELS[name][1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (3, 32, 32), "crop_pct": 0.95, "interpolation": "bicubic"},
        {"input_size": (3, 32, 32), "crop_pct": 0.7, "interpolation": "bilinear"},
        {"input_size": (3, 24, 24), "crop_pct": 1.0, "interpolation": "bicubic"},
        {"input_size": (3, 24, 32), "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bicubic"},
    ],
)
def test_the_model_sees_what_timms_own_transform_shows_it(timm, saved, tmp_path, photo, config):
    data = importlib.import_module("timm.data")
    shutil.copytree(saved["test_resnet"][0], tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "config.json").read_text())
    told["pretrained_cfg"] |= {**config, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    (tmp_path / "config.json").write_text(json.dumps(told))
    member = load(f"timm:{tmp_path}")
    member.module.model = seen = Seen()
    member(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255)
    transform = data.create_transform(**data.resolve_data_config(pretrained_cfg=told["pretrained_cfg"]), is_training=False)
    theirs = transform(Image.fromarray(photo))[None]
    assert seen.pictures.shape == theirs.shape
    apart = ((seen.pictures - theirs) * 255 * torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)).abs()
    assert apart.max() < 1.6
    assert apart.mean() < 0.6


def test_a_model_built_for_another_size_is_shown_that_size(saved):
    fit = load(f"timm:{saved['test_vit'][0]}").module.fit
    assert (fit.resize, fit.crop) == (33, (32, 32))  # floor(32 / 0.95); its pretrained ancestor took 160


def test_grey_models_get_one_channel(timm, tmp_path):
    importlib.import_module("timm.models").save_for_hf(
        built(timm, "test_resnet", in_chans=1), tmp_path, model_args={"in_chans": 1}, safe_serialization=True
    )
    member = load(f"timm:{tmp_path}")
    assert member.channels == len(member.mean) == len(member.std) == 1
    assert member(torch.rand(2, 1, 32, 32)).shape == (2, 96)


def test_an_architecture_and_its_weights(timm, saved, tmp_path):
    folder, model = saved["test_resnet"]
    bare = tmp_path / "bare.safetensors"
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    safetensors.torch.save_file(state, bare)
    x = torch.rand(2, 3, 40, 40)
    expected = load(f"timm:{folder}")(x)
    for file in (folder / "model.safetensors", bare):
        torch.testing.assert_close(load(f"timm:test_resnet@{file}")(x), expected)


def test_the_callers_random_numbers_do_not_notice(saved):
    state = torch.get_rng_state()
    load(f"timm:{saved['test_resnet'][0]}")
    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_are_not_passed_off_as_trained(timm, monkeypatch):
    hub = importlib.import_module("huggingface_hub")
    asked = []
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: asked.append(a))
    with pytest.raises(ModelError, match=r"random ones would be audited.*timm:test_resnet@WEIGHTS.safetensors"):
        load("timm:test_resnet")
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]


def test_pretrained_weights_come_out_of_the_local_cache(saved, monkeypatch):
    folder, _ = saved["test_resnet"]
    hub = importlib.import_module("huggingface_hub")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *a, **k: str(folder / "model.safetensors"))
    x = torch.rand(2, 3, 40, 40)
    torch.testing.assert_close(load("timm:test_resnet")(x), load(f"timm:{folder}")(x))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "1 of its weights are not there or have another shape"),
        (lambda state: state.update(extra=torch.zeros(1)), r"it holds others \(first: extra\)"),
        (lambda state: state.update({"layer1.0.conv1.weight": torch.zeros(1)}), "have another shape"),
    ],
    ids=["missing", "strange", "shape"],
)
def test_weights_of_another_model_are_refused(saved, tmp_path, change, sentence):
    state = dict(saved["test_resnet"][1].state_dict())
    change(state)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=f"timm:test_resnet@.*{sentence}"):
        load(f"timm:test_resnet@{tmp_path / 'w.safetensors'}")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("{not json", "could not be loaded"),
        ("[]", "names no architecture"),
        ({"architecture": "hf-hub:someone/model"}, "neither a folder nor an architecture"),
        ({"architecture": "local-dir:/tmp"}, "neither a folder nor an architecture"),
        ({"architecture": "test_resnet", "model_args": {"checkpoint_path": "x.pth"}}, "may not hold checkpoint_path"),
        ({"architecture": "test_resnet", "model_args": {"pretrained": True}}, "may not hold pretrained"),
        ({"architecture": "test_resnet", "model_args": {"block_size": 3}}, "could not be loaded"),
        ({"architecture": "test_vit", "model_args": {"embed_dim": 10**7}}, "are not there or have another shape"),
        ({"architecture": "test_resnet", "pretrained_cfg": {"crop_mode": "border"}}, "crop_mode 'border'"),
        ({"architecture": "test_resnet", "pretrained_cfg": {"interpolation": "random"}}, "interpolation 'random'"),
    ],
)
def test_a_damaged_or_hostile_folder_is_named(saved, tmp_path, config, sentence):
    shutil.copy(saved["test_resnet"][0] / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ModelError, match=f"timm:.*{sentence}"):
        load(f"timm:{tmp_path}")


def test_files_that_are_missing_or_cut_off_are_named(saved, tmp_path):
    with pytest.raises(ModelError, match=r"lacks config.json or model.safetensors; write one with timm.models.save_for_hf"):
        load(f"timm:{tmp_path}")
    with pytest.raises(ModelError, match=r"there is no weights file nowhere.safetensors"):
        load("timm:test_resnet@nowhere.safetensors")
    with pytest.raises(ModelError, match=r"did you mean .*resnet18"):
        load("timm:esnet18")
    shutil.copytree(saved["test_resnet"][0], tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    with pytest.raises(ModelError, match="could not be loaded"):
        load(f"timm:{tmp_path / 'cut'}")


def test_weights_outside_the_folder_are_not_loaded(saved, tmp_path):
    shutil.copytree(saved["test_resnet"][0], tmp_path / "home")
    weights = tmp_path / "home" / "model.safetensors"
    shutil.move(weights, tmp_path / "outside.safetensors")
    weights.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(ModelError, match="is a link to a file outside the folder"):
        load(f"timm:{tmp_path / 'home'}")


def test_pickled_weights_are_not_loaded(timm, tmp_path):
    importlib.import_module("timm.models").save_for_hf(built(timm, "test_resnet"), tmp_path, safe_serialization=False)
    assert (tmp_path / "pytorch_model.bin").is_file()
    with pytest.raises(ModelError, match=r"lacks config.json or model.safetensors"):
        load(f"timm:{tmp_path}")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingDependency, match=r"pip install 'embattle\[timm\]'"):
        load("timm:test_resnet")
