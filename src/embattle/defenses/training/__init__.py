"""Defensive training: losses over the attack loop, one file each.

A defense is built for one inner attack and one metric-learning loss. As a step of the trainer it attacks the batch on the
model as it is (in eval mode, parameters frozen), and returns the loss of what the attack found.
"""

from __future__ import annotations

from embattle.defenses.training.inner import InnerAttack
from embattle.registry import Registry

__all__ = ["DEFENSES", "InnerAttack"]

# Built as `defense(inner=..., metric_loss=...)`; a defense that needs the original model has it bound by `begin`.
DEFENSES: Registry = Registry("defense", "embattle.defenses.training")
