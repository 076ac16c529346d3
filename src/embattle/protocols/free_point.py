"""The best embedding an attacker could wish for: a free point of the unit sphere, whatever picture might have it.

With several targets even a free point cannot be nearest to all of them. What it reaches is the attainable bound that a
table of attacks must be read against; it is found by ascent from several starts, so the true bound may be a little better.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from embattle.attacks import Objective
from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError

_STEPS, _FIRST_STEP, _LAST_STEP, _ROWS = 60, 0.5, 0.01, 64


def free_points(embedder: Embedder, objective: Objective, clean: Tensor) -> Tensor:
    """Points of the unit sphere with the attacker's loss as high as ascent finds it.

    Args:
        embedder: whose space it is; its similarity must be the cosine, under which length does not matter.
        objective: CandidateRank or QueryRank with targets as embeddings.
        clean: (n, D) embeddings of the clean pictures, one of the starts; the others are the mean of a row's targets and
            its opposite.

    Returns:
        (n, D) of unit length.

    Raises:
        ConfigError: another similarity: points of any length would be free.
    """
    if embedder.similarity.name != "cosine":
        raise ConfigError(f"a free point of the sphere needs the cosine, not {embedder.similarity.name}")
    assert isinstance(objective, CandidateRank | QueryRank)
    bound = objective.bind(embedder)
    targets = objective.queries if isinstance(objective, CandidateRank) else objective.candidates
    middle = F.normalize(targets, dim=-1).mean(1)
    parts = []
    for index in torch.arange(len(clean)).split(_ROWS):
        constants = bound.prepare(index)

        def loss(z: Tensor, constants: Tree = constants) -> Tensor:
            return bound.loss({EMBEDDING: z}, constants, embedder)

        best, best_loss = clean[index], torch.full((len(index),), -torch.inf)
        for start in (clean[index], middle[index], -middle[index]):
            z, value = _climbed(loss, F.normalize(start, dim=-1))
            better = value > best_loss
            best, best_loss = torch.where(better.unsqueeze(1), z, best), torch.where(better, value, best_loss)
        parts.append(best)
    return torch.cat(parts)


def _climbed(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Ascent along the sphere with steps that shrink from about half a radian to a hundredth; the best iterate is kept."""
    best, best_loss = z, torch.full((len(z),), -torch.inf)
    for step in range(_STEPS + 1):
        leaf = z.detach().requires_grad_(True)
        value = loss(leaf)
        (grad,) = torch.autograd.grad(value.sum(), leaf)
        better = value.detach() > best_loss
        best = torch.where(better.unsqueeze(1), z, best)
        best_loss = torch.where(better, value.detach(), best_loss)
        size = _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (step / _STEPS)
        z = F.normalize(z + size * F.normalize(grad, dim=-1), dim=-1)
    return best, best_loss
