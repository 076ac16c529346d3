"""Resize and centre crop as a model's own processor does them, where they are more than the Embedder's plain resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embattle.embedders.embedder import Embedder
from embattle.errors import ConfigError, PixelError

Filter = Literal["bilinear", "bicubic"]
# In pixels. Sizes come out of files from outside; models of pictures stay below 1500, and memory grows with the square.
LARGEST_SIDE = 2048


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How pictures of any shape become the model's input.

    Args:
        resize: an int is the new length of the shorter side, the aspect ratio is kept; a pair is the new (height, width);
            None: pictures stay as they are.
        crop: (height, width) cut out of the middle afterwards; None: nothing is cut.
        filter: "bilinear" or "bicubic", both antialiased.
        rounding: where the crop begins when an odd number of pixels is left over: "floor" (transformers) or half to
            "even" (torchvision, timm).

    Raises:
        ConfigError: a length that is not positive or above 2048, or a crop larger than what is resized to.

    >>> Fit(resize=256, crop=(224, 224)).shape(480, 640)
    (256, 341)
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    filter: Filter = "bilinear"
    rounding: Literal["floor", "even"] = "floor"

    def __post_init__(self) -> None:
        sides = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        for pair in (sides, self.crop):
            if pair is not None and not (len(pair) == 2 and all(isinstance(side, int) and side > 0 for side in pair)):
                raise ConfigError(f"pictures cannot be brought to {pair}; a size is two whole numbers of pixels above 0")
        if max((side for pair in (sides, self.crop) if pair is not None for side in pair), default=1) > LARGEST_SIDE:
            raise ConfigError(
                f"pictures would be brought to {sides or self.crop}; a side may have {LARGEST_SIDE} pixels at most. If the "
                f"model does not want that, correct the size in its files"
            )
        if sides is not None and self.crop is not None and (self.crop[0] > sides[0] or self.crop[1] > sides[1]):
            raise ConfigError(f"{self.crop} pixels cannot be cut out of pictures resized to {self.resize}")

    @property
    def plain(self) -> bool:
        """Whether this is what an Embedder does by itself, given a size."""
        return self.crop is None and self.filter == "bilinear" and not isinstance(self.resize, int)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """What a picture of this height and width is resized to, before the crop."""
        if self.resize is None:
            return height, width
        if not isinstance(self.resize, int):
            return self.resize
        # Rounded down, as Pillow-based processors do.
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)


class Fitted(nn.Module):
    """A model behind a `Fit`; it takes normalised pictures (n, C, H, W) of any shape.

    Args:
        model: the model.
        fit: how pictures are resized and cropped.
        mean, std: how they were normalised. Bicubic filters overshoot at edges, and 8-bit processors cut that off:
            black and white after normalisation are where.
    """

    low: Tensor
    high: Tensor

    def __init__(self, model: nn.Module, fit: Fit, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.fit = fit
        black = -torch.tensor(mean) / torch.tensor(std)
        white = (1 - torch.tensor(mean)) / torch.tensor(std)
        self.register_buffer("low", black.view(-1, 1, 1), persistent=False)
        self.register_buffer("high", white.view(-1, 1, 1), persistent=False)

    def extra_repr(self) -> str:
        """The settings, which belong to the model's fingerprint."""
        return repr(self.fit)

    def forward(self, x: Tensor) -> Any:
        """The model's output for the resized and cropped pictures."""
        return self.model(self.fitted(x))

    def fitted(self, x: Tensor) -> Tensor:
        """The pictures as the model sees them.

        Raises:
            PixelError: pictures too small for the crop.
        """
        shape = self.fit.shape(*x.shape[-2:])
        # Rows first, like Pillow, which also cuts overshoot off after each of its two passes.
        for target in ((x.shape[-2], shape[1]), shape):
            if tuple(x.shape[-2:]) != target:
                x = F.interpolate(x, target, mode=self.fit.filter, antialias=True, align_corners=False)
                if self.fit.filter == "bicubic":
                    x = torch.minimum(torch.maximum(x, self.low.to(x.dtype)), self.high.to(x.dtype))
        if self.fit.crop is None:
            return x
        height, width = self.fit.crop
        if height > shape[0] or width > shape[1]:
            raise PixelError(
                f"pictures of {shape[0]}x{shape[1]} pixels are smaller than the {height}x{width} the model takes"
            )
        top, left = self._margin(shape[0] - height), self._margin(shape[1] - width)
        return x[..., top : top + height, left : left + width]

    def _margin(self, left_over: int) -> int:
        return left_over // 2 if self.fit.rounding == "floor" else round(left_over / 2)


def prepared(module: nn.Module, fit: Fit, **settings: Any) -> Embedder:
    """The Embedder of a model with this fit; the plain resize is left to the Embedder itself.

    Args:
        module: maps pictures (n, C, h, w), resized, cropped and normalised, to embeddings (n, D).
        fit: how pictures are resized and cropped. A `size` among the settings takes its place: a plain resize.
        settings: as in `Embedder`.
    """
    size = settings.pop("size", None)
    if size is not None or fit.plain:
        return Embedder(module, size=size if size is not None else fit.resize, **settings)
    channels = settings.get("channels", 3)
    mean = settings.get("mean") or (0.0,) * channels
    std = settings.get("std") or (1.0,) * channels
    # Built first: its checks of mean and std are the ones with sentences.
    embedder = Embedder(module, **settings)
    embedder.module = Fitted(module, fit, mean, std)
    return embedder


def picture_side(embedder: Embedder) -> int | None:
    """The side length in pixels at which square pictures lose nothing that this model sees; None: any.

    >>> picture_side(prepared(nn.Flatten(), Fit(resize=256, crop=(224, 224))))
    256
    """
    if embedder.size is not None:
        return embedder.size[0]
    if not isinstance(embedder.module, Fitted):
        return None
    fit = embedder.module.fit
    side = fit.resize if fit.resize is not None else fit.crop
    return side[0] if isinstance(side, tuple) else side
