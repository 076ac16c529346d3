"""The forms of a picture: (H, W, C) array, (C, H, W) tensor, Pillow image, and the bytes of a PNG file."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from embattle.errors import PixelError

Pixels = npt.NDArray[np.uint8]


def as_pillow(image: Pixels) -> Image.Image:
    """A Pillow picture with the same pixels, after checking that they are what this package calls a picture.

    Args:
        image: (H, W, C) uint8 with C = 1 or 3, H and W at least 1.

    Raises:
        PixelError: another type, shape or number of channels.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = getattr(image, "dtype", type(image).__name__)
        raise PixelError(f"a picture must be a numpy array of uint8, not {given}; write (x * 255).round().astype('uint8')")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise PixelError(
            f"a picture must have the shape (H, W, 1) or (H, W, 3), not {tuple(image.shape)}; "
            "for a torch tensor (C, H, W) write embattle.images.from_tensor(x)"
        )
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def as_pixels(picture: Image.Image) -> Pixels:
    """The (H, W, C) uint8 pixels of a Pillow picture of mode L or RGB, as memory of their own."""
    pixels = np.array(picture, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def from_tensor(image: Tensor) -> Pixels:
    """A uint8 tensor (C, H, W) with C = 1 or 3 as a picture (H, W, C) in memory of its own.

    Raises:
        PixelError: another type or shape; floats are refused, because how they are rounded decides whether an
            adversarial picture stays inside its budget.
    """
    if image.dtype != torch.uint8:
        raise PixelError(f"a picture must be uint8, not {image.dtype}; round the pixels with the budget's eight_bit first")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise PixelError(f"a picture tensor must have the shape (1, H, W) or (3, H, W), not {tuple(image.shape)}")
    return np.ascontiguousarray(image.detach().cpu().permute(1, 2, 0).numpy())


def to_tensor(image: Pixels) -> Tensor:
    """A picture (H, W, C) as a uint8 tensor (C, H, W) in memory of its own.

    Raises:
        PixelError: not (H, W, 1 or 3) uint8.
    """
    as_pillow(image)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)).copy())


def encode_png(image: Pixels) -> bytes:
    r"""The picture as the bytes of a PNG file.

    No time stamp, no metadata, fixed compression: equal pixels give equal bytes on the same library versions, which is
    what lets a unit of a run be compared byte by byte.

    Args:
        image: (H, W, C) uint8 with C = 1 (grey) or 3 (RGB).

    Raises:
        PixelError: another type or shape.

    >>> encode_png(np.zeros((2, 2, 1), dtype=np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    buffer = io.BytesIO()
    as_pillow(image).save(buffer, format="PNG", compress_level=6, optimize=False)
    return buffer.getvalue()
