"""What a picture is crafted for on one model, to be judged on another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Aims = Mapping[str, Tensor]
# The aims of query scenarios that are no goal of the attack, but neighbours that it leaves where they are.
_KEPT = "kept"


def crafted_for(own: Aims, theirs: Aims) -> Aims:
    """The goals are the judging model's; where they are the crafting model's too, so is what must stay natural.

    An attacker who needs nothing from the other model's lists keeps what their own model calls near. Row by row, so that a
    picture does not depend on its company.

    Args:
        own: aims that the crafting model's gallery gives, first axis n.
        theirs: those of the judging model, for the same pictures.
    """
    if _KEPT not in theirs:
        return theirs
    goals = [name for name in theirs if name != _KEPT]
    same = torch.stack([(own[name] == theirs[name]).flatten(1).all(1) for name in goals]).all(0)
    return {**theirs, _KEPT: torch.where(same.unsqueeze(1), own[_KEPT], theirs[_KEPT])}
