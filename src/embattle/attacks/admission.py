"""Checks at the door of the loop: pictures, ids, groups and objective must fit each other before a step is made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from embattle.attacks.objective import Bound, Objective
from embattle.attacks.surrogate import Surrogate
from embattle.embedders import check_pixels
from embattle.errors import ConfigError, ModelError

# Constants are embedded in batches of their own: many more pictures fit than where gradients are kept.
_EMBED_TILE = 256


def pixels(x: Tensor, surrogate: Surrogate) -> Tensor:
    """Float pictures in [0, 1] on the first member's device, with the channels every member expects.

    Raises:
        ConfigError: something that is no surrogate, such as a bare module.
        ModelError: a surrogate that only gives embeddings, no gradients.
    """
    if isinstance(surrogate, type) or not isinstance(surrogate, Surrogate):
        raise ConfigError(f"an attack needs an Embedder, not {_named(surrogate)}; wrap a module: Embedder(module, ...)")
    for member in surrogate.members:
        x = check_pixels(x, member.channels)
        if member.access != "gradient":
            raise ModelError(f"{member.name} gives no gradients; attack another surrogate and judge the result on it")
    x = x.detach().clone().float()
    for member in surrogate.members:
        if member.dimension is None:
            # Targets may come as embeddings: their length can only be checked against a model that has been asked once.
            member.embed(x[:1].cpu(), tile=1)
    return x.to(surrogate.members[0].device)


def _named(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def ids(given: Sequence[str] | None, x: Tensor) -> tuple[str, ...]:
    """Stable ids, one per picture; without any, a picture's content is its id, so batching changes nothing.

    Raises:
        ConfigError: another number of ids than pictures.
    """
    if given is None:
        return tuple(hashlib.blake2b(row.numpy().tobytes(), digest_size=16).hexdigest() for row in x.cpu().contiguous())
    if len(given) != len(x):
        raise ConfigError(f"{len(given)} id(s) for {len(x)} picture(s); give one id per picture")
    return tuple(str(name) for name in given)


def owners(groups: Sequence[int] | None, count: int) -> Tensor:
    """Which perturbation each picture carries, 0..P-1 in order of first appearance.

    Raises:
        ConfigError: another number of groups than pictures.
    """
    if groups is None:
        return torch.arange(count)
    if len(groups) != count:
        raise ConfigError(f"{len(groups)} group number(s) for {count} picture(s); give one per picture")
    place: dict[int, int] = {}
    return torch.tensor([place.setdefault(int(group), len(place)) for group in groups])


def is_stationary(objective: Objective | Bound | Sequence[Bound]) -> bool:
    """Whether the objective has no gradient at the clean picture."""
    parts = [objective] if isinstance(objective, Objective | Bound) else objective
    return any(part.stationary_at_clean for part in parts)


def bind(objective: Objective | Bound | Sequence[Bound], surrogate: Surrogate, count: int) -> tuple[Bound, ...]:
    """The objective bound to every member, with as many rows as there are pictures.

    Raises:
        ConfigError: no objective, or its class; embeddings as targets of an ensemble, bound objectives of another model,
            another number of rows.
    """
    members = surrogate.members
    for part in objective if isinstance(objective, list | tuple) else [objective]:
        if isinstance(part, type) or not isinstance(part, Bound if part is not objective else Objective | Bound):
            raise ConfigError(
                f"an attack needs an objective, or bound ones; not {_named(part)}: build one, such as Shift(anchor=x)"
            )
    if isinstance(objective, Objective):
        if objective.holds_embeddings and len(members) > 1:
            raise ConfigError(
                f"targets were given as embeddings, which belong to one model's space, but the surrogate has "
                f"{len(members)} members; give the targets as pictures"
            )
        bounds = tuple(objective.bind(member, tile=_EMBED_TILE) for member in members)
    else:
        bounds = (objective,) if isinstance(objective, Bound) else tuple(objective)
        if len(bounds) != len(members):
            raise ConfigError(f"{len(bounds)} bound objective(s) for {len(members)} member(s); bind one to each")
        for bound, member in zip(bounds, members, strict=True):
            if bound.fingerprint != member.fingerprint:
                raise ConfigError(f"the objective was bound to another model than {member.name}; bind it again")
    for bound in bounds:
        if bound.count != count:
            raise ConfigError(f"the objective has targets for {bound.count} row(s), there are {count} picture(s)")
    return bounds
