"""What makes a model harder to manipulate: defensive training."""

from __future__ import annotations

from embattle.defenses.config import HardenConfig
from embattle.defenses.hardening import check_hardening, harden
from embattle.defenses.training import DEFENSES, InnerAttack

__all__ = ["DEFENSES", "HardenConfig", "InnerAttack", "check_hardening", "harden"]
