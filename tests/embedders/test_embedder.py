"""The Embedder adds preprocessing and nothing else, and says what is wrong with a model in one sentence."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embattle.attacks import pgd
from embattle.attacks.objectives import Match
from embattle.budget import Linf
from embattle.embedders import IMAGENET_MEAN, IMAGENET_STD, Embedder
from embattle.errors import ConfigError, ModelError, PixelError
from embattle.similarity import Cosine, Euclidean
from embattle.vectors import check_embeddings


def pictures(n=4, channels=1, side=8):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


class Normalising(nn.Sequential):
    """A Sequential whose forward does more than its children in a row."""

    def forward(self, x):
        return F.normalize(super().forward(x) + 1, dim=1) * 7


class Gated(nn.Module):
    """Calls a child twice, another never, and branches on its input."""

    def __init__(self):
        super().__init__()
        self.first, self.unused = nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        z = x.flatten(1)
        z = self.first(z).tanh() if float(x.detach().sum()) >= 0 else z
        return self.first(z)


def hooked():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    module[1].register_forward_hook(lambda module, given, out: out * 2 - 1)
    return module


ODD = {
    "overridden forward": lambda: Normalising(nn.Flatten(), nn.Linear(64, 5)),
    "child called twice": Gated,
    "user's own hook": hooked,
    "no parameters": nn.Flatten,
    "nested": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), nn.Flatten()),
}


@pytest.mark.parametrize("name", ODD)
def test_without_preprocessing_it_is_the_module_itself(name):
    module = ODD[name]().eval()
    x = pictures()
    assert torch.equal(Embedder(module, channels=1)(x), module(x))


@pytest.mark.parametrize("name", ODD)
def test_gradients_are_those_of_the_module(name):
    module = ODD[name]().eval()
    found = []
    for f in (Embedder(module, channels=1), module):
        x = pictures().requires_grad_(True)
        found.append(torch.autograd.grad(f(x).square().sum(), x)[0])
    assert torch.equal(*found)


class Spy(nn.Module):
    """Keeps the range of what the first layer sees."""

    def __init__(self):
        super().__init__()
        self.ranges, self.shapes = [], []

    def forward(self, x):
        self.ranges.append((x.amin((0, 2, 3)).tolist(), x.amax((0, 2, 3)).tolist()))
        self.shapes.append(tuple(x.shape))
        return x.flatten(1)


def test_normalisation_happens_exactly_once_everywhere():
    spy = Spy()
    member = Embedder(spy, channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    x = pictures(channels=3)
    x[..., 0, 0], x[..., 0, 1] = 0, 1
    member(x)
    member.embed(x)
    member.embed((x * 255).to(torch.uint8))
    pgd(budget=Linf(1e-4), steps=2)(member, x, Match(target=1 - x))
    low = [-m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    high = [(1 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert len(spy.ranges) >= 6
    for least, most in spy.ranges:
        assert least == pytest.approx(low, abs=1e-3)
        assert most == pytest.approx(high, abs=1e-3)


def test_grey_pictures_are_normalised_with_one_number():
    x = pictures()
    found = Embedder(nn.Flatten(), channels=1, mean=(0.25,), std=(0.5,))(x)
    torch.testing.assert_close(found, ((x - 0.25) / 0.5).flatten(1))


@pytest.mark.parametrize(("size", "shape"), [(5, (5, 5)), ((4, 6), (4, 6)), (8, (8, 8)), (None, (8, 8)), (20, (20, 20))])
def test_pictures_are_brought_to_the_models_size(size, shape):
    spy = Spy()
    x = pictures().requires_grad_(True)
    z = Embedder(spy, channels=1, size=size, mean=(0.5,), std=(0.5,))(x)
    assert spy.shapes == [(4, 1, *shape)]
    (grad,) = torch.autograd.grad(z.sum(), x)
    assert (grad.abs() > 0).all(), "every pixel has a say"
    expected = x if shape == (8, 8) else F.interpolate(x, shape, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(z, ((expected - 0.5) / 0.5).flatten(1))


def test_a_size_that_fits_already_changes_no_bit():
    x = pictures()
    assert torch.equal(Embedder(nn.Flatten(), channels=1, size=8)(x), x.flatten(1))


def test_embed_does_not_depend_on_company_and_takes_bytes():
    torch.manual_seed(0)
    member = Embedder(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16)), channels=1)
    grey = (pictures(37) * 255).to(torch.uint8)
    whole = member.embed(grey, tile=16)
    assert torch.equal(whole[5:6], member.embed(grey[5:6], tile=16))
    assert torch.equal(whole[20:], member.embed(grey[20:], tile=16))
    assert torch.equal(whole, member.embed(grey.float() / 255, tile=16))
    assert not whole.requires_grad
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole, member(grey.float() / 255).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("shape", "sentence"), [((0, 1, 8, 8), "at least one"), ((3, 3, 8, 8), r"1 channel\(s\)"), ((3, 8, 8), "N, C, H, W")]
)
def test_what_is_no_picture_is_not_embedded(shape, sentence, dtype):
    with pytest.raises(PixelError, match=sentence):
        Embedder(nn.Flatten(), channels=1).embed(torch.zeros(shape, dtype=dtype))


def test_hidden_layers_are_read_without_leaving_hooks():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
    member = Embedder(module, channels=1)
    found = member.outputs(pictures(), ("embedding", "0", "1"))
    assert {name: tuple(v.shape) for name, v in found.items()} == {
        "embedding": (4, 72),
        "0": (4, 2, 6, 6),
        "1": (4, 2, 6, 6),
    }
    assert torch.equal(found["0"].relu(), found["1"])
    with pytest.raises(ConfigError, match=r"no layer '9'; it has, for instance: 0, 1, 2"):
        member.outputs(pictures(), ("0", "9"))
    assert all(not m._forward_hooks for m in module.modules())


def test_threads_may_share_a_model():
    member = Embedder(nn.Sequential(nn.Dropout(0.5), nn.Flatten()), channels=1)
    member.module.train()
    x, wrong, go = pictures(), [], threading.Barrier(4)

    def work():
        go.wait()
        for _ in range(30):
            if not torch.equal(member(x), x.flatten(1)):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, "one thread put dropout back while another was inside"
    assert member.module.training


# Models that cannot be used ---------------------------------------------------------------------------------------------
class Gives(nn.Module):
    """Returns whatever a function makes of the flattened picture."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x.flatten(1))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda z: (z, z), r"Gives returned a tuple; wrap it in a module that returns one tensor"),
        (lambda z: {"z": z}, r"returned a dict"),
        (lambda z: z.view(-1, 8, 8), r"shape \(4, 8, 8\) for 4 picture"),
        (lambda z: z.sum(1), r"shape \(4,\) for 4 picture"),
        (lambda z: z[:1], r"shape \(1, 64\) for 4 picture"),
        (lambda z: z.long(), r"torch.int64 of shape \(4, 64\)"),
        (lambda z: z[:, :0], r"shape \(4, 0\)"),
    ],
    ids=["tuple", "dict", "map", "scalar", "pooled over the batch", "integers", "nothing"],
)
def test_an_output_that_is_no_embedding_is_named(make, sentence):
    member = Embedder(Gives(make), channels=1)
    for call in (member, lambda x: member.embed(x, tile=4)):
        with pytest.raises(ModelError, match=sentence):
            call(pictures())


def test_an_embedding_of_varying_length_is_named():
    member = Embedder(nn.Flatten(), channels=1)
    member(pictures())
    with pytest.raises(ModelError, match="set size= so that all pictures enter with one shape"):
        member(pictures(side=9))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_counted(value):
    z = torch.rand(5, 3)
    z[2, 1] = z[4, 0] = value
    with pytest.raises(ModelError, match=r"2 of 5 embeddings of my model are NaN or infinite \(the first is number 2\)"):
        check_embeddings(z, Cosine(), "embeddings of my model")


@pytest.mark.parametrize("similarity", [Cosine(), Euclidean()], ids=lambda s: s.name)
def test_a_collapsed_model_is_recognised(similarity):
    with pytest.raises(ModelError, match=r"all 5 embeddings are equal: the model has collapsed"):
        check_embeddings(torch.ones(5, 3) * 100, similarity)
    scaled = torch.arange(1.0, 6).view(5, 1) * torch.ones(5, 3)
    if similarity.name == "cosine":
        with pytest.raises(ModelError, match="collapsed"):
            check_embeddings(scaled, similarity)
    else:
        assert check_embeddings(scaled, similarity) is scaled
    assert check_embeddings(torch.ones(1, 3), similarity) is not None, "one picture cannot collapse"


def test_small_but_real_differences_are_no_collapse():
    z = torch.ones(5, 3) + torch.rand(5, 3) * 1e-3
    assert check_embeddings(z, Cosine()) is z


def test_an_embedding_without_direction_is_recognised():
    z = torch.rand(5, 3)
    z[3] = 0
    with pytest.raises(ModelError, match=r"1 of 5 embeddings are all zeros \(the first is number 3\)"):
        check_embeddings(z, Cosine())
    assert check_embeddings(z, Euclidean()) is z


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"channels": 4}, "channels must be 1 or 3, not 4"),
        ({"mean": (0.5,)}, r"mean has 1 number\(s\), one for each of the 3"),
        ({"std": (0.5, 0.5)}, r"std has 2 number\(s\)"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be positive"),
        ({"similarity": "dot"}, "'dot' is not known"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Embedder(nn.Flatten(), **settings)
