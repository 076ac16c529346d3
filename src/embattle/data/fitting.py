"""Bring loaded pictures to the channels and the size that were asked for, once, and within a bound on memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from embattle.data.imageset import ImageSet
from embattle.errors import DataError
from embattle.images import from_tensor, resize, to_tensor

LARGEST_SIDE = 4096
# The larger split of Stanford Online Products at its papers' 224 pixels needs 8.5 GiB.
LARGEST_SET = 9 * 2**30


def check_shape(channels: int | None, size: int | None) -> None:
    """Whether this number of channels and this side length can be asked for; None means "keep".

    Raises:
        DataError: channels other than 1 and 3, or a side outside 1..4096.
    """
    if channels is not None and channels not in (1, 3):
        raise DataError(f"channels={channels} is not possible; pictures are loaded with 1 (grey) or 3 (RGB) channels")
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise DataError(f"size={size} is not possible; the side of a picture must lie between 1 and {LARGEST_SIDE} pixels")


def check_memory(name: str, count: int, channels: int, height: int, width: int) -> None:
    """Whether a set of this many pictures may be held in memory: 9 GiB of pixels at most.

    Raises:
        DataError: more than that.
    """
    needed = count * channels * height * width
    if needed > LARGEST_SET:
        raise DataError(
            f"{name}: {count} pictures of {width} x {height} with {channels} channels need {needed / 2**30:.1f} GiB; "
            f"at most {LARGEST_SET // 2**30} GiB are held. Give a smaller size (such as size=128) or fewer pictures."
        )


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Grey pictures repeated to RGB, or RGB reduced to grey by Rec. 601 luma, rounded.

    Args:
        images: (N, C, H, W) uint8, C = 1 or 3.
        channels: 1 or 3.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    red, green, blue = images.to(torch.int32).unbind(dim=1)
    # Pillow's own fixed-point weights, so that grey means the same here and when a file is decoded.
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return luma.to(torch.uint8)[:, None]


def fit_set(data: ImageSet, *, channels: int | None, size: int | None) -> ImageSet:
    """The set with the channels and the side length asked for (square, aspect ratio kept, white borders); None keeps.

    Raises:
        DataError: impossible channels or size, or more memory than allowed.
    """
    check_shape(channels, size)
    if size is not None:
        check_memory(data.name, len(data), channels or data.channels, size, size)
    images = data.images
    if size is not None and data.size != (size, size):
        images = torch.stack([to_tensor(resize(from_tensor(image), size)) for image in images])
    if channels is not None:
        images = to_channels(images, channels)
    return data if images is data.images else replace(data, images=images)
