"""A search that sees nothing but embeddings: random signs, then random squares, kept where they help.

In the manner of the Square Attack (Andriushchenko et al. 2020), cut down to what a check needs: an attacker without
gradients whom an attack with gradients has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from embattle import rng

# Side of the squares as a share of the picture's, at the first and at the last query.
_FIRST, _LAST = 0.6, 0.05


def random_search(
    clean: Tensor, loss: Callable[[Tensor], Tensor], *, eps: float, queries: int, seed: int, ids: Sequence[str]
) -> Tensor:
    """The best of `queries` pictures within Linf ε of each clean one.

    Args:
        clean: (N, C, H, W) uint8 on the CPU.
        loss: of (N, C, H, W) uint8 pictures, (N,), higher = better for the attacker; NaN never counts as better.
        eps: in pixel units of [0, 1]; whole grey levels of it are used.
        queries: pictures shown to the model for each clean one, at least 1.
        seed: of all draws.
        ids: of the pictures, by which draws are keyed.

    Returns:
        (N, C, H, W) uint8.
    """
    levels = math.floor(255 * eps + 1e-6)
    names = tuple(ids)
    shape = clean.shape[1:]
    change = levels * rng.Rows(seed=seed, ids=names, step=(0,) * len(names)).draw("random-search", shape, rng.signs)
    best = _moved(clean, change)
    reached = loss(best).nan_to_num(nan=-torch.inf)
    for query in range(1, queries):
        rows = rng.Rows(seed=seed, ids=names, step=(query,) * len(names))
        colours = levels * rows.draw("random-search-colour", (shape[0], 1, 1), rng.signs)
        proposal = torch.where(_squares(rows, shape, query / queries), colours, change)
        pictures = _moved(clean, proposal)
        found = loss(pictures)
        better = (found > reached).view(-1, 1, 1, 1)
        change, best = torch.where(better, proposal, change), torch.where(better, pictures, best)
        reached = torch.where(better.flatten(), found, reached)
    return best


def _moved(clean: Tensor, change: Tensor) -> Tensor:
    return (clean.float() + change).clamp(0, 255).to(torch.uint8)


def _squares(rows: rng.Rows, shape: Sequence[int], share: float) -> Tensor:
    """(N, 1, H, W): a square somewhere in each picture; it shrinks as the search goes on."""
    _, height, width = shape
    side = _FIRST + (_LAST - _FIRST) * share
    tall, wide = max(1, round(side * height)), max(1, round(side * width))
    place = rows.draw("random-search-place", (2,))
    room = torch.tensor([height - tall + 1, width - wide + 1])
    top, left = (place * room).long().unsqueeze(2).unbind(1)
    y, x = torch.arange(height).unsqueeze(0), torch.arange(width).unsqueeze(0)
    inside = ((y >= top) & (y < top + tall)).unsqueeze(2) & ((x >= left) & (x < left + wide)).unsqueeze(1)
    return inside.unsqueeze(1)
