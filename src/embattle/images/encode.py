"""Write uint8 pictures as PNG: without loss, and the same bytes for the same pixels."""

from __future__ import annotations

import io

from embattle.images.resize import Pixels, as_pillow


def encode_png(image: Pixels) -> bytes:
    r"""The picture as the bytes of a PNG file.

    No time stamp, no metadata, fixed compression: equal pixels give equal bytes on the same library versions, which is
    what lets a unit of a run be compared byte by byte.

    Args:
        image: (H, W, C) uint8 with C = 1 (grey) or 3 (RGB).

    Raises:
        PixelError: another type or shape.

    >>> import numpy as np
    >>> encode_png(np.zeros((2, 2, 1), dtype=np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    buffer = io.BytesIO()
    as_pillow(image).save(buffer, format="PNG", compress_level=6, optimize=False)
    return buffer.getvalue()
