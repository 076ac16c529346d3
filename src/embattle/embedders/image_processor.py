"""What a transformers image processor does to a picture, as a differentiable `Fit`, and proof that it is all it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from embattle.embedders.preparation import LARGEST_SIDE, Filter, Fit, Fitted, picture_side, prepared
from embattle.errors import ModelError

# Pillow's numbers. Lanczos becomes bicubic, as in the processors' own torchvision backend.
_FILTERS: dict[int, Filter] = {1: "bicubic", 2: "bilinear", 3: "bicubic"}
# From this edge on ConvNeXT's processor resizes to a square and crops nothing.
_CONVNEXT_SQUARE = 384
# Mean difference in grey levels. 8-bit rounding and another antialiasing filter stay below 1, a shift by one pixel above 3.
_TOLERANCE = 1.5
_WITHOUT_SIZE = 64


def understand(processor: Any, channels: int) -> tuple[Fit, dict[str, Any]]:
    """The fit and the normalisation, in units of [0, 1], that `processor` stands for.

    Args:
        processor: an image processor of transformers.
        channels: what the model takes, 1 or 3.

    Raises:
        ModelError: a setting that is not understood, an absurd size, or a processor that does more than its settings say,
            found on one picture, in colours or in grey as the model takes it.
    """
    told = {key: value for key, value in processor.to_dict().items() if value is not None}
    _check_sizes(told)
    fit = _fit(told)
    mean, std = _normalisation(told, channels)
    _compare(processor, fit, mean, std)
    if set(mean) == {0.0} and set(std) == {1.0}:
        return fit, {}
    return fit, {"mean": mean, "std": std}


def _check_sizes(told: dict[str, Any]) -> None:
    """Those that are not understood count as well: the processor would allocate them when it is tried."""
    for key, value in told.items():
        sides = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        if "size" in key and any(isinstance(side, int | float) and side > LARGEST_SIDE for side in sides):
            raise ModelError(
                f"its processor's {key} is {value}; a side may have {LARGEST_SIDE} pixels at most. Correct it in the "
                f"folder, or describe the model's input with --size, --mean and --std together"
            )


def _fit(told: dict[str, Any]) -> Fit:
    number = int(told.get("resample", 2))
    if told.get("do_resize") and number not in _FILTERS:
        raise ModelError(
            f"its processor resizes with Pillow's filter {number}; bilinear (2) and bicubic (3) are understood"
        )
    crop = _pair(told.get("crop_size")) if told.get("do_center_crop") else None
    if not told.get("do_resize"):
        return Fit(crop=crop)
    size, kind = told.get("size"), _FILTERS[number]
    if (pair := _pair(size)) is not None:
        return Fit(resize=pair, crop=crop, filter=kind)
    edge = size.get("shortest_edge") if isinstance(size, dict) and not size.get("longest_edge") else None
    if not isinstance(edge, int):
        raise ModelError(f"its processor resizes to {size}; (height, width) or a shortest_edge alone is understood")
    if "crop_pct" in told and edge >= _CONVNEXT_SQUARE:
        return Fit(resize=(edge, edge), crop=crop, filter=kind)
    if "crop_pct" in told:
        return Fit(resize=int(edge / told["crop_pct"]), crop=(edge, edge), filter=kind)
    return Fit(resize=edge, crop=crop, filter=kind)


def _pair(size: object) -> tuple[int, int] | None:
    if isinstance(size, dict) and isinstance(size.get("height"), int) and isinstance(size.get("width"), int):
        return size["height"], size["width"]
    return None


def _normalisation(told: dict[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for pixels in [0, 1]; processors multiply 8-bit pixels by a factor of their own first."""
    scale = 255 * float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale") else 255.0
    # Written 1 / 255 with few digits, a factor would make a mean and a std out of nothing.
    scale = 1.0 if abs(scale - 1) < 1e-4 else scale
    offset = 1.0 if told.get("rescale_offset") else 0.0
    normalised = bool(told.get("do_normalize"))
    mean = _channels(told.get("image_mean", 0.0) if normalised else 0.0, channels)
    std = _channels(told.get("image_std", 1.0) if normalised else 1.0, channels)
    if len(mean) != channels or len(std) != channels:
        raise ModelError(
            f"its processor normalises {max(len(mean), len(std))} channels and the model takes {channels}; describe the "
            f"model's input with --size, --mean and --std together"
        )
    return tuple((m + offset) / scale for m in mean), tuple(s / scale for s in std)


def _channels(values: float | Sequence[float], channels: int) -> list[float]:
    return [float(values)] * channels if isinstance(values, int | float) else [float(value) for value in values]


def _compare(processor: Any, fit: Fit, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Shows one picture to the processor and to our reading of it."""
    side = picture_side(prepared(nn.Identity(), fit)) or _WITHOUT_SIZE
    pixels = _picture(side + side // 4, side + side // 2)[:, :, : len(mean)]
    # Grey pictures have no axis of channels in Pillow.
    shown = Image.fromarray(pixels[:, :, 0] if len(mean) == 1 else pixels)
    theirs = torch.as_tensor(np.asarray(processor(shown, return_tensors="pt")["pixel_values"])).float()
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    scale = torch.tensor(std).view(-1, 1, 1)
    ours = Fitted(nn.Identity(), fit, mean, std)((x - torch.tensor(mean).view(-1, 1, 1)) / scale)
    if theirs.shape != ours.shape:
        found = f"makes {tuple(theirs.shape)} of a picture, {tuple(ours.shape)} is what its settings say"
    else:
        apart = float((255 * scale * (ours - theirs)).abs().mean())
        if apart <= _TOLERANCE:
            return
        found = f"differs by {apart:.0f} grey levels from what its settings say"
    raise ModelError(
        f"its {type(processor).__name__} does more than resize, crop and normalise: it {found}. Describe the model's input "
        f"with --size, --mean and --std together, or wrap the model and its preprocessing as module:package.module:factory"
    )


def _picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture in which shifts, flips, exchanged colours and other sizes show: each channel has its own waves and ramp."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (3 + c) + c) + np.cos(y / (4 - c)) + 2 * x / width * (c - 1) for c in range(3)]
    stacked = np.stack(waves, axis=2)
    low, high = stacked.min((0, 1)), stacked.max((0, 1))
    levels: npt.NDArray[np.float64] = (stacked - low) / (high - low) * np.array([255.0, 200.0, 150.0])
    return levels.astype(np.uint8)
