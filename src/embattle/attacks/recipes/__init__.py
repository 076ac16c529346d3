"""Attacks by the names people know: each a combination of parts; one file per family, found by the registry."""

from __future__ import annotations

from embattle.registry import Registry

ATTACKS: Registry = Registry("attack", "embattle.attacks.recipes")
