"""Change the size of uint8 pictures, by Pillow's antialiased Lanczos filter."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from embattle.errors import PixelError
from embattle.images.encode import Pixels, as_pillow, as_pixels

Fit = Literal["pad", "stretch", "crop"]

LARGEST_SIDE = 8192


def _target(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise PixelError(
            f"a picture cannot be resized to {height} x {width}; its sides must lie between 1 and {LARGEST_SIDE}"
        )
    return height, width


def resize(image: Pixels, size: int | tuple[int, int], *, fit: Fit = "pad", fill: int = 255) -> Pixels:
    """The picture at another size.

    Args:
        image: (H, W, C) uint8 with C = 1 or 3.
        size: the new side length, or (height, width), in pixels.
        fit: "pad" keeps the aspect ratio and fills the borders, "crop" keeps it and cuts the middle out, "stretch"
            ignores it.
        fill: grey value 0..255 of the borders under "pad"; white by default, like transparent pixels in `decode`.

    Raises:
        PixelError: the picture, the size, `fit` or `fill` is none of these.

    >>> import numpy as np
    >>> resize(np.zeros((10, 20, 1), dtype=np.uint8), 8)[:, 0, 0].tolist()
    [255, 255, 0, 0, 0, 0, 255, 255]
    """
    picture = as_pillow(image)
    height, width = _target(size)
    if fit not in ("pad", "stretch", "crop"):
        raise PixelError(f"fit={fit!r} is unknown; write fit='pad', fit='stretch' or fit='crop'")
    if not 0 <= fill <= 255:
        raise PixelError(f"fill={fill} is no grey value; it must lie between 0 and 255")
    if (picture.height, picture.width) == (height, width):
        return image.copy()
    if fit == "stretch":
        return as_pixels(picture.resize((width, height), Image.Resampling.LANCZOS))
    if fit == "crop":
        return as_pixels(_crop(picture, height, width))
    return as_pixels(_pad(picture, height, width, fill))


def _crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    # The box is given in source pixels with fractions, so that nothing is rounded before the filter.
    scale = min(picture.width / width, picture.height / height)
    left = (picture.width - width * scale) / 2
    top = (picture.height - height * scale) / 2
    box = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + width * scale, picture.width),
        min(top + height * scale, picture.height),
    )
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _pad(picture: Image.Image, height: int, width: int, fill: int) -> Image.Image:
    scale = min(width / picture.width, height / picture.height)
    inner = (max(1, min(width, round(picture.width * scale))), max(1, min(height, round(picture.height * scale))))
    canvas = Image.new(picture.mode, (width, height), fill if picture.mode == "L" else (fill, fill, fill))
    canvas.paste(picture.resize(inner, Image.Resampling.LANCZOS), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas
