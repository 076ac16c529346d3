"""The best an attacker could wish for: a free point of the unit sphere, whatever picture might have it.

With several targets even a free point cannot be nearest to all of them. A table of attacks must be read against what it
reaches. It is searched for by ascent of the objective without any side condition, and the point with the best ranks on the
way is kept: an estimate from inside, so no attack is refuted by it, and the true bound may be better still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from embattle.attacks import Objective
from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError

_STEPS, _FIRST_STEP, _LAST_STEP, _ROWS = 30, 0.5, 0.01, 64
# Ranks are counted at every so many steps: counting costs more than a step.
_LOOKED_AT = 10
# What the search is, in full: part of a run's identity.
SEARCH = f"{_STEPS} steps of {_FIRST_STEP} to {_LAST_STEP} from 3 starts, ranks at every {_LOOKED_AT}th"


def free_points(
    embedder: Embedder, objective: Objective, clean: Tensor, ranks: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Points of the unit sphere with the best ranks that ascent comes by.

    Args:
        embedder: whose space it is; its similarity must be the cosine, under which length does not matter.
        objective: CandidateRank or QueryRank with targets as embeddings; what it preserves is disregarded.
        clean: (n, D) embeddings of the clean pictures, one of the starts; the others are the mean of a row's targets and
            its opposite.
        ranks: of row numbers (r,) and points (r, D): the mean rank (r,) that the table prints.

    Returns:
        (n, D) of unit length.

    Raises:
        ConfigError: another similarity: points of any length would be free.
    """
    if embedder.similarity.name != "cosine":
        raise ConfigError(f"a free point of the sphere needs the cosine, not {embedder.similarity.name}")
    assert isinstance(objective, CandidateRank | QueryRank)
    free = replace(objective, preserve=None) if isinstance(objective, QueryRank) else objective
    bound = free.bind(embedder)
    targets = free.queries if isinstance(free, CandidateRank) else free.candidates
    middle = F.normalize(targets, dim=-1).mean(1).to(clean.device)
    sign = 1.0 if free.direction == "lower" else -1.0
    parts = []
    for index in torch.arange(len(clean)).split(_ROWS):
        constants = bound.prepare(index)

        def loss(z: Tensor, constants: Tree = constants) -> Tensor:
            return bound.loss({EMBEDDING: z}, constants, embedder)

        best, best_score = clean[index], torch.full((len(index),), -torch.inf, dtype=torch.float64)
        for start in (clean[index], middle[index], -middle[index]):
            # The objective's constants are where the model is; ranks are counted where the embeddings are.
            for z in _climb(loss, F.normalize(start, dim=-1).to(embedder.device)):
                z = z.to(clean.device)
                score = sign * ranks(index, z).double()
                better = score > best_score
                best, best_score = torch.where(better.unsqueeze(1), z, best), torch.where(better, score, best_score)
        parts.append(best)
    return torch.cat(parts)


def _climb(loss: Callable[[Tensor], Tensor], z: Tensor) -> Iterator[Tensor]:
    """Ascent along the sphere with steps that shrink from about half a radian to a hundredth."""
    for step in range(_STEPS + 1):
        if step % _LOOKED_AT == 0:
            yield z
        leaf = z.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(loss(leaf).sum(), leaf)
        size = _FIRST_STEP * (_LAST_STEP / _FIRST_STEP) ** (step / _STEPS)
        z = F.normalize(z + size * F.normalize(grad, dim=-1), dim=-1)
