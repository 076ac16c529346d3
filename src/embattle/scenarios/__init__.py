"""What an attacker may try on a searchable gallery: drawn, attacked, measured and shown in one place.

The audit asks it of the owner's system, the protocols of the papers' models. One file per family, found by the registry.
"""

from __future__ import annotations

from embattle.scenarios.crossing import crafted_for
from embattle.scenarios.scenario import SCENARIOS, Exhibit, Measured, Scenario, Setting, Shown, named
from embattle.scenarios.subject import Subject, check_gallery, page_length
from embattle.scenarios.universal import is_universal

__all__ = [
    "SCENARIOS",
    "Exhibit",
    "Measured",
    "Scenario",
    "Setting",
    "Shown",
    "Subject",
    "check_gallery",
    "crafted_for",
    "is_universal",
    "named",
    "page_length",
]
