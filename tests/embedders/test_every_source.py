"""What holds for a model wherever it comes from: equal when loaded again, gradients, an attack, a check-up."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest
import torch
from torch import nn

from embattle.attacks import pgd
from embattle.attacks.objectives import Shift
from embattle.audit.checkup import examine
from embattle.budget import Linf
from embattle.cli.app import run
from embattle.embedders import ADAPTERS, load, save_checkpoint, save_weights
from embattle.networks import build

FACTORY = """
import torch
from torch import nn

def network():
    torch.manual_seed(6)
    return nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
"""


def _hf(folder):
    transformers = importlib.import_module("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPVisionConfig(**small, image_size=16, patch_size=8, projection_dim=6)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    sides = {"size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}}
    transformers.CLIPImageProcessor(**sides).save_pretrained(folder)
    return f"hf:{folder}"


def _timm(folder):
    timm, hub = importlib.import_module("timm"), importlib.import_module("timm.models")
    hub.save_for_hf(timm.create_model("test_vit", num_classes=3, img_size=32), folder, safe_serialization=True)
    return f"timm:{folder}"


def _onnx(folder):
    module = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8))
    axes = ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.rand(2, 3, 20, 20),), folder / "m.onnx", dynamo=True, dynamic_shapes=axes, verbose=False
        )
    return f"onnx:{folder / 'm.onnx'}"


def _module(folder):
    (folder / "factory_of_every_source.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    return "module:factory_of_every_source:network"


def _checkpoint(folder):
    arguments = {"in_channels": 3, "size": 24, "dimension": 8}
    save_checkpoint(
        folder / "m.safetensors", build("small", **arguments), network="small", network_args=arguments, similarity="cosine",
        channels=3, size=24,
    )  # fmt: skip
    return f"checkpoint:{folder / 'm.safetensors'}"


def _weights(folder):
    (folder / "factory_of_weights.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    spec = "module:factory_of_weights:network"
    changed = load(spec)
    changed.module[0].weight.data.mul_(1.5)
    return f"weights:{save_weights(folder / 'm.safetensors', changed)}@{spec}"


WRITERS = {
    "hf": _hf, "timm": _timm, "onnx": _onnx, "module": _module, "checkpoint": _checkpoint, "weights": _weights,
}  # fmt: skip


@pytest.fixture(scope="module")
def specs(transformers, timm, onnx, tmp_path_factory):
    torch.manual_seed(6)
    found = {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}
    yield found
    for folder in ("module0", "weights0"):
        sys.path.remove(str(tmp_path_factory.getbasetemp() / folder))


@pytest.fixture(params=sorted(WRITERS))
def spec(request, specs):
    return specs[request.param]


def test_no_source_is_left_out():
    assert {entry.name for entry in ADAPTERS} == set(WRITERS)


def test_loading_again_gives_the_same_model(spec):
    first, second = load(spec), load(spec)
    x = torch.rand(3, 3, 24, 28)
    assert torch.equal(first(x), second(x))
    assert first.fingerprint == second.fingerprint
    # The mode of what a factory returns is its owner's; the others come ready for use.
    assert not first.module.training or "module:" in spec


def test_gradients_reach_the_pixels(spec):
    member, x = load(spec), (0.2 + 0.6 * torch.rand(2, 3, 24, 24)).requires_grad_()
    (gradient,) = torch.autograd.grad(member(x).square().sum() + member(x)[:, 0].sum(), x)
    assert torch.isfinite(gradient).all()
    # The cropped border and what strides leave out have none.
    assert (gradient != 0).double().mean() > 0.6


def test_an_attack_moves_the_embedding_within_its_budget(spec):
    member, x = load(spec), torch.rand(3, 3, 24, 24)
    attack = pgd(budget=Linf(8 / 255), steps=4)
    result = attack(member, x, Shift(anchor=x), seed=1, tile=2)
    assert (result.x_adv - x).abs().max() <= 8 / 255 + 1e-6
    with torch.no_grad():
        noise = (x + (torch.randint(0, 2, x.shape) * 2 - 1) * 8 / 255).clamp(0, 1)
        moved, by_chance = (1 - member.similarity.pair(member(x), member(other)) for other in (result.x_adv, noise))
    assert (moved > by_chance).all()
    assert (moved > 1e-6).all()


def test_a_check_up_has_no_complaint(spec):
    pictures = (torch.rand(6, 3, 24, 24) * 255).to(torch.uint8)
    wrong = [check for check in examine(load(spec), pictures) if check.status == "FAIL"]
    assert not wrong


def test_the_command_line_knows_it(spec, capsys):
    assert run(["doctor", "--model", spec, "--data", "digits", "--threads", "1"]) == 0
    assert "FAIL, " in capsys.readouterr().out
    scheme = spec.partition(":")[0]
    assert run(["show", scheme]) == 0
    assert f"embattle audit --data FOLDER --model {scheme}:" in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["hf", "timm", "onnx"])
def test_what_cannot_be_loaded_is_a_sentence_and_exit_code_2(scheme, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    (tmp_path / "model.safetensors").write_bytes(b"\xff\xfe")
    path = tmp_path / "config.json" if scheme == "onnx" else tmp_path
    assert run(["doctor", "--model", f"{scheme}:{path}", "--threads", "1"]) == 2
    assert f"embattle: {scheme}:{path}" in capsys.readouterr().err
