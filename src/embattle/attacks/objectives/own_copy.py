"""The attacked picture's own clean copy in the gallery: kept, as the paper does, or left out of the ranking."""

from __future__ import annotations

import torch
from torch import Tensor

from embattle.errors import ConfigError


def check_own(own: Tensor | None, rows: int, gallery: int) -> Tensor | None:
    """Returns (N,) gallery positions, or None.

    Raises:
        ConfigError: not one position per row, or a position outside the gallery.
    """
    if own is None:
        return None
    own = torch.as_tensor(own)
    if own.shape != (rows,) or own.is_floating_point():
        raise ConfigError(f"own must be {rows} whole gallery positions, one per row; not {own.dtype} of {tuple(own.shape)}")
    if len(own) and (int(own.min()) < 0 or int(own.max()) >= gallery):
        raise ConfigError(f"own has positions outside the gallery of {gallery} items")
    return own.long()
