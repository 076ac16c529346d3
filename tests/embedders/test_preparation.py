"""Resize and crop against torchvision's own transforms of the 8-bit picture, and what they refuse."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from embattle.embedders import Embedder, picture_side
from embattle.embedders.preparation import Fit, Fitted, prepared
from embattle.errors import ConfigError, PixelError


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("resize", "crop"),
    [(24, (16, 16)), (21, (14, 17)), (60, (33, 40)), ((20, 26), None), ((20, 26), (13, 20)), (None, (30, 31))],
)
def test_it_is_what_torchvision_does_to_the_picture(timm, photo, resize, crop, filter):
    transforms = importlib.import_module("torchvision.transforms")
    kind = transforms.InterpolationMode.BILINEAR if filter == "bilinear" else transforms.InterpolationMode.BICUBIC
    theirs = Image.fromarray(photo)
    if resize is not None:
        theirs = transforms.Resize(resize, interpolation=kind)(theirs)
    if crop is not None:
        theirs = transforms.CenterCrop(crop)(theirs)
    expected = as_tensor(np.asarray(theirs))
    fit = Fit(resize=resize, crop=crop, filter=filter, rounding="even")
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.5]).view(3, 1, 1)
    fitted = Fitted(nn.Identity(), fit, mean.flatten().tolist(), std.flatten().tolist())
    ours = fitted((as_tensor(photo) - mean) / std) * std + mean
    assert ours.shape == expected.shape
    # Pillow rounds to 8 bits after each of its two passes.
    apart = (ours - expected).abs() * 255
    assert apart.max() < 1.6
    assert apart.mean() < 0.5


def test_an_odd_margin_is_rounded_as_each_library_does():
    x = torch.arange(7.0).expand(1, 1, 7, 7) / 7
    cut = {
        rounding: Fitted(nn.Identity(), Fit(crop=(4, 4), rounding=rounding), (0.0,), (1.0,))(x)[0, 0, 0, 0].item() * 7
        for rounding in ("floor", "even")
    }
    assert cut == pytest.approx({"floor": 1, "even": 2})


def test_bicubic_overshoot_is_cut_off_at_black_and_white():
    x = torch.zeros(1, 1, 8, 8)
    x[..., 4:] = 1
    mean, std = 0.25, 0.5
    fitted = Fitted(nn.Identity(), Fit(resize=(16, 16), filter="bicubic"), (mean,), (std,))((x - mean) / std) * std + mean
    free = nn.functional.interpolate(x, (16, 16), mode="bicubic", antialias=True, align_corners=False)
    assert free.min() < -0.01
    assert free.max() > 1.01
    torch.testing.assert_close(fitted, free.clamp(0, 1), atol=1e-6, rtol=0)


def test_gradients_reach_the_pixels_that_the_crop_keeps():
    embedder = prepared(nn.Flatten(), Fit(resize=16, crop=(8, 8), filter="bicubic"), mean=(0.5,) * 3, std=(0.5,) * 3)
    x = (0.2 + 0.6 * torch.rand(2, 3, 16, 16)).requires_grad_()
    (gradient,) = torch.autograd.grad(embedder(x).square().sum(), x)
    assert (gradient[..., 4:12, 4:12] != 0).all()
    gradient[..., 4:12, 4:12] = 0
    assert not gradient.any()


def test_a_plain_resize_is_left_to_the_embedder():
    module = nn.Flatten()
    embedder = prepared(module, Fit(resize=(6, 8)), channels=1)
    assert embedder.module is module
    assert embedder.size == (6, 8)
    assert prepared(module, Fit(resize=9, crop=(6, 6)), size=5).size == (5, 5)


def test_settings_belong_to_the_fingerprint():
    def of(**fit):
        return prepared(nn.Flatten(), Fit(**{"resize": 12, "crop": (8, 8), **fit})).fingerprint

    assert of() == of()
    assert len({of(), of(resize=13), of(crop=(7, 8)), of(filter="bicubic"), of(rounding="even")}) == 5


@pytest.mark.parametrize(
    ("fit", "side"),
    [(Fit(resize=12, crop=(8, 8)), 12), (Fit(resize=(9, 8), crop=(4, 4)), 9), (Fit(crop=(5, 6)), 5), (Fit(), None)],
)
def test_the_side_at_which_pictures_lose_nothing(fit, side):
    assert picture_side(prepared(nn.Flatten(), fit)) == side
    assert picture_side(Embedder(nn.Flatten(), size=(7, 9))) == 7


def test_impossible_fits_are_refused():
    with pytest.raises(ConfigError, match=r"\(9, 9\) pixels cannot be cut out of pictures resized to 8"):
        Fit(resize=8, crop=(9, 9))
    with pytest.raises(ConfigError, match="two whole numbers of pixels above 0"):
        Fit(resize=0)
    for absurd in ({"resize": 2049}, {"resize": (16, 2049)}, {"crop": (2049, 16)}):
        with pytest.raises(ConfigError, match="2048 pixels at most"):
            Fit(**absurd)
    assert Fit(resize=2048, crop=(2048, 2048)).shape(10, 10) == (2048, 2048)
    with pytest.raises(ConfigError, match="mean has 2"):
        prepared(nn.Flatten(), Fit(crop=(2, 2)), mean=(0.5, 0.5))
    with pytest.raises(PixelError, match="pictures of 4x9 pixels are smaller than the 5x5"):
        prepared(nn.Flatten(), Fit(crop=(5, 5)))(torch.rand(1, 3, 4, 9))


def test_a_folder_is_held_at_the_size_before_the_crop(tmp_path, photo):
    from embattle.cli.auditing import load_gallery

    for number in range(2):
        Image.fromarray(photo[:, : 53 - number]).save(tmp_path / f"{number}.png")
    embedder = prepared(nn.Flatten(), Fit(resize=20, crop=(16, 16)))
    assert load_gallery(str(tmp_path), embedder, data_root=None, on_error="raise").images.shape == (2, 3, 20, 20)
