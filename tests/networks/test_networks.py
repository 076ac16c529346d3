"""The networks: sizes from the papers, shapes, and arguments that are checked."""

import pytest
import torch

from embattle import networks
from embattle.errors import ConfigError
from embattle.networks import NETWORKS

SIDES = {"c2f1": 28, "c2f2": 28, "lenet": 28, "resnet18": 32, "small": 32}


def built(name, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return networks.build(name, **arguments).eval()


def parameters(module):
    return sum(weight.numel() for weight in module.parameters())


def test_c2f1_has_the_papers_number_of_parameters():
    assert parameters(built("c2f1")) == 3_264_384


def test_c2f2_is_c2f1_a_relu_and_a_linear_layer():
    module = built("c2f2")
    assert parameters(module) == 3_264_384 + 1025 * 512
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    hidden = module.body(x)
    assert hidden.shape == (4, 1024)
    assert (hidden < 0).any()
    torch.testing.assert_close(module(x), hidden.clamp(min=0) @ module.embedding.weight.T + module.embedding.bias)


def test_lenet_and_resnet18_have_the_published_numbers_of_parameters():
    # Caffe's LeNet without its classifier; ResNet-18's published 11,689,512 less its 1000-way classifier (513,000).
    assert parameters(built("lenet")) == 20 * 26 + 50 * (20 * 25 + 1) + 500 * 801
    assert parameters(built("resnet18")) == 11_689_512 - 513_000
    assert parameters(built("resnet18", in_channels=1)) == 11_689_512 - 513_000 - 2 * 64 * 49


def test_every_network_is_tried_here():
    assert {entry.name for entry in NETWORKS} == set(SIDES)


@pytest.mark.parametrize("name", sorted(SIDES))
@pytest.mark.parametrize("channels", [1, 3])
def test_embeds_pictures_one_by_one_as_in_a_batch(name, channels):
    side = SIDES[name]
    module = built(name, **networks.arguments_for(name, channels, side))
    x = torch.rand(3, channels, side, side, generator=torch.Generator().manual_seed(1))
    together = module(x)
    assert together.ndim == 2
    assert together.dtype == torch.float32
    alone = torch.cat([module(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4


@pytest.mark.parametrize(("stem", "side"), [("standard", 1), ("small", 4)])
def test_resnet18_stem_decides_the_resolution(stem, side):
    module = built("resnet18", in_channels=1, stem=stem)
    seen = []
    module.layer4.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[-2:])))
    assert module(torch.zeros(1, 1, 32, 32)).shape == (1, 512)
    assert seen == [(side, side)]


def test_resnet18_has_the_layer_names_of_the_shared_imagenet_weights():
    names = set(built("resnet18", dimension=7).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias", "fc.weight"} <= names
    assert built("resnet18", dimension=7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_lenet_ends_in_a_relu_and_c2f1_does_not():
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    assert built("lenet")(x).min() == 0
    assert built("c2f1")(x).min() < 0


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("c2f3", {}, "did you mean c2f"),
        ("c2f2", {"hidden": 0}, "c2f2: hidden must be a whole number of at least 1, not 0"),
        ("c2f1", {"chanels": 1}, "it takes: in_channels, size, dimension"),
        ("c2f1", {"size": 30}, "multiple of 4"),
        ("c2f1", {"in_channels": 2}, "must be 1 or 3, not 2"),
        ("lenet", {"size": 12}, "at least 16"),
        ("small", {"size": 28}, "multiple of 8"),
        ("small", {"width": 0}, "at least 1, not 0"),
        ("resnet18", {"stem": "tiny"}, "standard, small"),
        ("resnet18", {"dimension": True}, "whole number"),
    ],
)
def test_bad_arguments_are_sentences(name, arguments, said):
    with pytest.raises(ConfigError, match=said):
        networks.build(name, **arguments)
