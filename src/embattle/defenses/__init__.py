"""What makes a model harder to manipulate: defensive training."""

from __future__ import annotations

from embattle.defenses.training import DEFENSES, InnerAttack

__all__ = ["DEFENSES", "InnerAttack"]
