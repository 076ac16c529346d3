"""Attacks on image embeddings: one loop, many parts.

``attacks.pgd(budget=Linf(8/255), steps=20)(embedder, x, objectives.Match(target=...), seed=0)`` gives an `AttackResult`.
"""

from __future__ import annotations

from embattle.attacks import objectives
from embattle.attacks.loop import Attack
from embattle.attacks.objective import Bound, Objective
from embattle.attacks.objectives import OBJECTIVES
from embattle.attacks.recipes import ATTACKS
from embattle.attacks.recipes.gradient import apgd, fgsm, mi_fgsm, pgd, ranking_steps
from embattle.attacks.recipes.universal import universal
from embattle.attacks.result import AttackResult
from embattle.attacks.surrogate import Surrogate
from embattle.attacks.transform import Transform
from embattle.attacks.updates import UPDATES, Update

__all__ = [
    "ATTACKS",
    "OBJECTIVES",
    "UPDATES",
    "Attack",
    "AttackResult",
    "Bound",
    "Objective",
    "Surrogate",
    "Transform",
    "Update",
    "apgd",
    "fgsm",
    "mi_fgsm",
    "objectives",
    "pgd",
    "ranking_steps",
    "universal",
]
