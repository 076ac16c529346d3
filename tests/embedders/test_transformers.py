"""hf: models: their own embedding, their own processor's preprocessing, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from embattle.embedders import load
from embattle.errors import MissingDependency, ModelError

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


def _siglip(transformers):
    vision = {**SMALL, "image_size": SIDE, "patch_size": 8}
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 4}
    return transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))


def _siglip_vision(transformers):
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL, image_size=SIDE, patch_size=8))


def _deit(transformers):
    return transformers.DeiTModel(transformers.DeiTConfig(**SMALL, image_size=SIDE, patch_size=8))


def _convnext(transformers):
    return transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], patch_size=2, image_size=SIDE)
    )


def _swin(transformers):
    return transformers.SwinModel(
        transformers.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2, image_size=SIDE, patch_size=2)
    )


# The model, its expected embedding of normalised pixels, and the embedding's length.
MODELS = {
    "vit": (_vit, lambda m, x: m(pixel_values=x).pooler_output, 16),
    "clip": (_clip, lambda m, x: m.visual_projection(m.vision_model(pixel_values=x).pooler_output), 6),
    "clip vision": (_clip_vision, lambda m, x: m(pixel_values=x).image_embeds, 6),
    "dinov2": (_dinov2, lambda m, x: m(pixel_values=x).last_hidden_state[:, 0], 16),
    "resnet": (_resnet, lambda m, x: m(pixel_values=x).pooler_output.flatten(1), 8),
    "deit": (_deit, lambda m, x: m(pixel_values=x).pooler_output, 16),
    "siglip": (_siglip, lambda m, x: m.vision_model(pixel_values=x).pooler_output, 16),
    "siglip vision": (_siglip_vision, lambda m, x: m(pixel_values=x).pooler_output, 16),
    "convnext": (_convnext, lambda m, x: m(pixel_values=x).pooler_output, 16),
    "swin": (_swin, lambda m, x: m(pixel_values=x).pooler_output, 16),
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
def folders(transformers, tmp_path_factory):
    made = {}
    for name, (build, _, _) in MODELS.items():
        torch.manual_seed(2)
        model, folder = build(transformers).eval(), tmp_path_factory.mktemp(name.replace(" ", "-"))
        model.save_pretrained(folder)
        processor = {**PROCESSOR, "image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
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


# Processors as their models have them, at a size that keeps tests quick: class, settings, what it makes of a picture.
PROCESSORS = {
    "squashed": ("ViTImageProcessor", {"size": {"height": 16, "width": 20}}),
    "bicubic": ("SiglipImageProcessor", {"size": {"height": 16, "width": 16}}),
    "edge and crop": ("CLIPImageProcessor", {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}),
    "dinov2": ("BitImageProcessor", {"size": {"shortest_edge": 21}, "crop_size": {"height": 16, "width": 16}}),
    "squashed and cropped": (
        "DeiTImageProcessor",
        {"size": {"height": 20, "width": 20}, "crop_size": {"height": 16, "width": 16}},
    ),
    "crop_pct": ("ConvNextImageProcessor", {"size": {"shortest_edge": 16}, "crop_pct": 0.8}),
    "pixels in -1..1": (
        "EfficientNetImageProcessor",
        {
            "size": {"height": 16, "width": 16}, "rescale_factor": 1 / 127.5, "rescale_offset": True,
            "do_normalize": False, "include_top": False,
        },
    ),
    "not normalised": ("ViTImageProcessor", {"size": {"height": 16, "width": 16}, "do_normalize": False}),
    "pixels in 0..255": (
        "ViTImageProcessor",
        {"size": {"height": 16, "width": 16}, "do_rescale": False, "image_mean": [99, 100, 101], "image_std": [50, 60, 70]},
    ),
    "as it is": ("ViTImageProcessor", {"do_resize": False}),
}  # fmt: skip


def with_processor(folder, target, processor):
    """A copy of a saved model with another processor; None: with none."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    (target / "preprocessor_config.json").unlink()
    if processor is not None:
        (target / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"hf:{target}"


class Seen(torch.nn.Module):
    """Stands in for a model and keeps what it is shown."""

    def forward(self, x):
        self.pictures = x
        return x.flatten(1)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_model_sees_what_the_processor_of_transformers_shows_it(transformers, folders, tmp_path, photo, name):
    kind, settings = PROCESSORS[name]
    processor = getattr(transformers, kind)(**settings)
    processor.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())
    member = load(with_processor(folders["vit"][0], tmp_path / "model", saved))
    inner, seen = member.module, Seen()
    if hasattr(inner, "fitted"):
        inner.model = seen
    else:
        member.module = seen
    member(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255)
    theirs = torch.as_tensor(np.asarray(processor(Image.fromarray(photo), return_tensors="pt")["pixel_values"])).float()
    assert seen.pictures.shape == theirs.shape
    # In grey levels, whatever the normalisation; theirs is rounded and cut off on the way.
    grey = 255 * torch.tensor(member.std or (1.0,) * 3).view(3, 1, 1)
    apart = ((seen.pictures - theirs) * grey).abs()
    assert apart.max() < 1.6
    assert apart.mean() < 0.6


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("EfficientNetImageProcessor", {"include_top": True}, "differs by .* grey levels from what its settings say"),
        ("LevitImageProcessor", {}, "differs by .* grey levels from what its settings say"),
        ("ViTImageProcessor", {"resample": 0}, "resizes with Pillow's filter 0"),
        ("CLIPImageProcessor", {"size": {"longest_edge": 30}}, "a shortest_edge alone is understood"),
    ],
)
def test_a_processor_that_does_something_else_is_refused(transformers, folders, tmp_path, kind, settings, sentence):
    saved = {**getattr(transformers, kind)().to_dict(), **settings}
    saved["resample"] = int(saved["resample"])
    spec = with_processor(folders["vit"][0], tmp_path, saved)
    with pytest.raises(ModelError, match=f"hf:.*{sentence}"):
        load(spec)
    # The way out that the sentence names.
    assert load(spec, size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3).size == (SIDE, SIDE)


def test_without_a_processor_the_model_says_its_size(folders, tmp_path):
    member = load(with_processor(folders["vit"][0], tmp_path, None))
    assert (member.size, member.mean, member.std) == ((SIDE, SIDE), None, None)


def test_what_is_given_takes_the_place_of_the_processors_settings(folders, transformers, tmp_path):
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})
    spec = with_processor(folders["clip"][0], tmp_path, {**processor.to_dict(), "resample": 3})
    own, other = load(spec), load(spec, size=SIDE, mean=(0.5,) * 3, similarity="euclidean")
    assert own.size is None
    assert other.size == (SIDE, SIDE)
    assert (other.mean, other.std) == ((0.5,) * 3, own.std)
    assert other.similarity.name == "euclidean"


def test_half_precision_weights_are_raised_to_single(transformers, tmp_path):
    _vit(transformers).half().save_pretrained(tmp_path)
    member = load(f"hf:{tmp_path}")
    assert {p.dtype for p in member.module.parameters()} == {torch.float32}


def test_code_in_a_folder_is_not_executed(folders, tmp_path):
    shutil.copytree(folders["vit"][0], tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    (tmp_path / "model" / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Config: pass\n")
    told = json.loads(config.read_text())
    told["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Config"}
    config.write_text(json.dumps({**told, "model_type": "evil"}))
    with pytest.raises(ModelError, match="could not be loaded"):
        load(f"hf:{tmp_path / 'model'}")
    # Of a known type its own class is taken.
    config.write_text(json.dumps(told))
    assert load(f"hf:{tmp_path / 'model'}").name.startswith("vit")
    assert not (tmp_path / "executed").exists()


def test_attention_kernels_named_by_a_folder_are_not_fetched(folders, tmp_path):
    shutil.copytree(folders["vit"][0], tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "attn_implementation": "someone/kernels"}))
    x = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(load(f"hf:{tmp_path}")(x), load(f"hf:{folders['vit'][0]}")(x))


@pytest.mark.parametrize("part", ["vision_config", "text_config"])
def test_quantised_parts_are_refused(folders, tmp_path, part):
    shutil.copytree(folders["clip"][0], tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "config.json").read_text())
    told[part]["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="the model is quantised; save it with float weights"):
        load(f"hf:{tmp_path}")


def sharded(model, folder):
    """The model in several files, and their index."""
    model.save_pretrained(folder, max_shard_size="4KB")
    return folder / "model.safetensors.index.json"


def test_weights_in_several_files_of_the_folder_are_read(folders, tmp_path):
    folder, model = folders["vit"]
    sharded(model, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    x = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(load(f"hf:{tmp_path}")(x), load(f"hf:{folder}")(x))


@pytest.mark.parametrize("way", ["../outside/", "{absolute}/", "link", "folder link"])
def test_weights_outside_the_folder_are_not_loaded(folders, tmp_path, way):
    index, outside = sharded(folders["vit"][1], tmp_path / "home"), tmp_path / "outside"
    outside.mkdir()
    told = json.loads(index.read_text())
    moved = next(iter(told["weight_map"].values()))
    shutil.move(index.parent / moved, outside / moved)
    if way == "link":
        (index.parent / moved).symlink_to(outside / moved)
    else:
        (index.parent / "inner").symlink_to(outside)
        way = "inner/" if way == "folder link" else way.format(absolute=outside)
        told["weight_map"] = {k: way + v if v == moved else v for k, v in told["weight_map"].items()}
        index.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=f"hf:.*weights from .*{moved}', which is no file in its own folder"):
        load(f"hf:{index.parent}")


def test_a_single_weights_file_outside_the_folder_is_not_loaded(folders, tmp_path):
    shutil.copytree(folders["vit"][0], tmp_path / "home")
    weights = tmp_path / "home" / "model.safetensors"
    shutil.move(weights, tmp_path / "outside.safetensors")
    weights.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(ModelError, match=r"'model\.safetensors', which is no file in its own folder"):
        load(f"hf:{tmp_path / 'home'}")


def test_a_snapshot_in_the_hubs_cache_is_its_own_folder(folders, tmp_path):
    home, blobs = tmp_path / "models--a--b" / "snapshots" / ("c" * 40), tmp_path / "models--a--b" / "blobs"
    shutil.copytree(folders["vit"][0], home)
    blobs.mkdir()
    weights, blob = home / "model.safetensors", blobs / ("d" * 64)
    shutil.move(weights, blob)
    weights.symlink_to(blob)
    x = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(load(f"hf:{home}")(x), load(f"hf:{folders['vit'][0]}")(x))
    weights.unlink()
    shutil.move(blob, blobs / "secret")
    weights.symlink_to(blobs / "secret")
    with pytest.raises(ModelError, match="no file in its own folder"):
        load(f"hf:{home}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"weight_map": {"a": "mod', "cannot be read as JSON; it may be cut off"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "is damaged: it lacks a weight_map"),
        (b'{"metadata": {}}', "is damaged"),
        (b'{"metadata": {}, "weight_map": {}}', "is damaged"),
        (b'{"metadata": {}, "weight_map": ["a.safetensors"]}', "is damaged"),
        (b'{"weight_map": {"a": "model.safetensors"}}', "is damaged"),
        (b'{"metadata": {}, "weight_map": {"a": 3}}', "names 3, which is no .safetensors file"),
        (b'{"metadata": {}, "weight_map": {"a": "pytorch_model.bin"}}', "names 'pytorch_model.bin', which is no"),
        (b'{"metadata": {}, "weight_map": {"a": "\\u0000.safetensors"}}', "no file in its own folder"),
    ],
)
def test_a_damaged_index_is_refused(folders, tmp_path, content, sentence):
    index = sharded(folders["vit"][1], tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    index.write_bytes(content)
    with pytest.raises(ModelError, match=f"hf:.*{sentence}"):
        load(f"hf:{tmp_path}")


def test_adapters_and_weights_named_in_the_configuration_are_refused(folders, tmp_path):
    shutil.copytree(folders["vit"][0], tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "config.json").read_text())
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**told, "transformers_weights": "other.safetensors"}))
    with pytest.raises(ModelError, match=r"names a weights file of its own \('other.safetensors'\)"):
        load(f"hf:{tmp_path}")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(ModelError, match=r"holds an adapter .* merge it into its model"):
        load(f"hf:{tmp_path}")


@pytest.fixture(scope="module")
def grey_folder(transformers, tmp_path_factory):
    """A model of pictures with one channel."""
    folder = tmp_path_factory.mktemp("grey")
    torch.manual_seed(2)
    config = transformers.ViTConfig(**SMALL, image_size=SIDE, patch_size=8, num_channels=1)
    transformers.ViTModel(config).eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


ONE = {"image_mean": [0.4], "image_std": [0.3]}


def test_a_model_of_grey_pictures_sees_what_its_processor_shows_it(transformers, grey_folder, tmp_path, photo):
    processor = transformers.DeiTImageProcessor(
        size={"height": 20, "width": 20}, crop_size={"height": 16, "width": 16}, **ONE
    )
    processor.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())
    member = load(with_processor(grey_folder, tmp_path / "model", saved))
    assert (member.channels, member.mean, member.std) == (1, (0.4,), (0.3,))
    member.module.model = seen = Seen()
    grey = photo[:, :, 0].copy()
    member(torch.from_numpy(grey)[None, None].float() / 255)
    theirs = processor(Image.fromarray(grey), return_tensors="pt")["pixel_values"]
    assert seen.pictures.shape == theirs.shape
    assert (255 * 0.3 * (seen.pictures - theirs)).abs().mean() < 0.6


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (
            "EfficientNetImageProcessor",
            {"include_top": True, **ONE},
            "differs by .* grey levels from what its settings say",
        ),
        ("CLIPImageProcessor", ONE, r"makes \(1, 3, 224, 224\) of a picture, \(1, 1, 224, 224\) is what its settings say"),
        ("ViTImageProcessor", {}, "normalises 3 channels and the model takes 1"),
    ],
)
def test_processors_are_compared_on_grey_pictures_too(transformers, grey_folder, tmp_path, kind, settings, sentence):
    saved = {**getattr(transformers, kind)(**settings).to_dict()}
    saved["resample"] = int(saved["resample"])
    spec = with_processor(grey_folder, tmp_path, saved)
    with pytest.raises(ModelError, match=f"hf:.*{sentence}"):
        load(spec)
    assert load(spec, size=SIDE, mean=(0.5,), std=(0.5,)).channels == 1


HUGE = 10**6


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("ViTImageProcessor", {"size": {"height": HUGE, "width": 16}}, "its processor's size is .* 2048 pixels at most"),
        ("CLIPImageProcessor", {"size": {"shortest_edge": HUGE}}, "its processor's size is"),
        ("CLIPImageProcessor", {"do_resize": False, "crop_size": {"height": HUGE, "width": HUGE}}, "crop_size is"),
        ("ViTImageProcessor", {"do_pad": True, "pad_size": {"height": HUGE, "width": HUGE}}, "pad_size is"),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 16}, "crop_pct": 1e-5}, "2048 pixels at most"),
    ],
)
def test_absurd_sizes_are_refused_before_they_take_memory(transformers, folders, tmp_path, kind, settings, sentence):
    saved = {**getattr(transformers, kind)().to_dict(), **settings}
    saved["resample"] = int(saved["resample"])
    with pytest.raises(ModelError, match=f"hf:.*{sentence}"):
        load(with_processor(folders["vit"][0], tmp_path, saved))


def test_an_absurd_size_of_the_model_itself_is_refused(folders, tmp_path):
    spec = with_processor(folders["resnet"][0], tmp_path, None)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "image_size": HUGE}))
    with pytest.raises(ModelError, match=r"\(1000000, 1000000\); a side may have 2048 pixels at most"):
        load(spec)
    assert load(spec, size=SIDE).size == (SIDE, SIDE)


def test_quantised_weights_and_other_pairs_are_refused(folders, tmp_path):
    shutil.copytree(folders["vit"][0], tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ModelError, match="the model is quantised; save it with float weights"):
        load(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip"}))
    with pytest.raises(ModelError, match="blip is a model of pictures and more; of these clip and siglip are known"):
        load(f"hf:{tmp_path}")


def test_without_transformers_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"pip install 'embattle\[hf\]'"):
        load(f"hf:{folders['vit'][0]}")


def test_pickled_weights_are_not_loaded(folders, tmp_path):
    folder, model = folders["vit"]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="could not be loaded"):
        load(f"hf:{tmp_path}")


@pytest.mark.parametrize("damage", ["cut", "config", "type", "processor"])
def test_a_damaged_folder_is_named(folders, tmp_path, damage):
    shutil.copytree(folders["vit"][0], tmp_path, dirs_exist_ok=True)
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
    shutil.copytree(folders["vit"][0], tmp_path, dirs_exist_ok=True)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    dropped = next(name for name in weights if "layernorm" in name.lower() and name.endswith("weight"))
    weights.pop(dropped)
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks"):
        load(f"hf:{tmp_path}")
