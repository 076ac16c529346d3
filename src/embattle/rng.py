"""Random draws keyed by what they are for, so that no draw depends on batch size, order, sharding or the global state.

Every draw is a function of (seed, sample id, stream name, the row's own step) and of nothing else. The generator is
numpy's Philox, keyed by a hash of those four: the same picture gets the same noise alone, in a batch, or on another worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor

Fill = Callable[[Generator, tuple[int, ...]], np.ndarray]


def generator(seed: int, *key: str | int) -> Generator:
    """A numpy generator keyed by (seed, *key); equal keys give equal streams.

    >>> bool(generator(0, "a", 1).integers(1000) == generator(0, "a", 1).integers(1000))
    True
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in key)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return Generator(Philox(key=np.frombuffer(digest, dtype=np.uint64)))


def uniform(low: float = 0.0, high: float = 1.0) -> Fill:
    """Fills a draw with numbers uniform in [low, high)."""
    return lambda rng, shape: rng.uniform(low, high, shape).astype(np.float32)


def signs(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Fills a draw with -1 or +1, equally likely."""
    return (rng.integers(0, 2, shape) * 2 - 1).astype(np.float32)


def normal(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Fills a draw with standard normal numbers."""
    return rng.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Who sits in the tile now: the keys that random parts (starts, transforms, dropout masks) draw by.

    Args:
        seed: the attack's seed.
        ids: one stable id per row; a padded row repeats another's.
        step: the row's own iteration, (n,) integers; rows of one tile may be at different steps.
        live: False during a clean judging pass, when transforms and model edits are off.
    """

    seed: int
    ids: tuple[str, ...]
    step: tuple[int, ...]
    live: bool = True

    def draw(self, stream: str, shape: Sequence[int], fill: Fill | None = None) -> Tensor:
        """Draws (n, *shape) float32 numbers, uniform in [0, 1) unless `fill` says otherwise; each row by its own key."""
        fill = fill or uniform()
        rows = [
            fill(generator(self.seed, row, stream, step), tuple(shape))
            for row, step in zip(self.ids, self.step, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)
