"""Pictures made for people's eyes: what an attack added, and thumbnails for ranked lists."""

from __future__ import annotations

import numpy as np
from PIL import Image

from embattle.errors import PixelError
from embattle.images.encode import Pixels, as_pillow, as_pixels

NEUTRAL = 127


def difference(a: Pixels, b: Pixels, gain: float = 10) -> Pixels:
    """What was added to `a` to give `b`, made visible: `127 + gain * (b - a)`, clipped to 0..255; grey means equal.

    Args:
        a: (H, W, C) uint8, the original.
        b: (H, W, C) uint8, the changed picture, of the same shape.
        gain: how many times the difference is enlarged, above 0.

    Raises:
        PixelError: the shapes differ, or a picture is not (H, W, 1 or 3) uint8, or the gain is not above 0.

    >>> difference(np.full((1, 1, 1), 100, dtype=np.uint8), np.full((1, 1, 1), 103, dtype=np.uint8)).item()
    157
    """
    as_pillow(a), as_pillow(b)
    if a.shape != b.shape:
        raise PixelError(f"two pictures of the shapes {a.shape} and {b.shape} have no difference; resize one of them first")
    if not (np.isfinite(gain) and gain > 0):
        raise PixelError(f"gain={gain} is not allowed; it must be a number above 0")
    enlarged = NEUTRAL + gain * (b.astype(np.float64) - a.astype(np.float64))
    return np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)


def thumbnail(image: Pixels, side: int = 96) -> Pixels:
    """The picture for a list in a report, its longer side at most `side`, with its aspect ratio kept.

    Small pictures are enlarged by a whole factor without a filter, so that a reader sees the pixels that were attacked
    and not an interpolation of them; large ones are reduced by the Lanczos filter.

    Args:
        image: (H, W, C) uint8 with C = 1 or 3.
        side: longest side in pixels, 1 or more.

    Raises:
        PixelError: another type or shape, or a side below 1.

    >>> thumbnail(np.zeros((28, 28, 1), dtype=np.uint8)).shape
    (84, 84, 1)
    """
    picture = as_pillow(image)
    if side < 1:
        raise PixelError(f"a thumbnail of side {side} is not possible; write side=96, or any number from 1 on")
    factor = side // max(picture.size)
    if factor >= 1:
        return np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return as_pixels(picture.resize(size, Image.Resampling.LANCZOS))
