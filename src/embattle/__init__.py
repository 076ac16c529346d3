"""Embattle: how easily can adversarial pictures manipulate an image-embedding system? Audit it, show it, mend it.

Names load on first use, so `import embattle` stays light and `embattle.report` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "IMAGENET_MEAN": "embedders",
    "IMAGENET_STD": "embedders",
    "AttackResult": "attacks",
    "Cosine": "similarity",
    "Embedder": "embedders",
    "Euclidean": "similarity",
    "L2": "budget",
    "Linf": "budget",
    "objectives": "attacks",
}
_PACKAGES = (
    "attacks",
    "audit",
    "data",
    "defenses",
    "embedders",
    "images",
    "index",
    "metrics",
    "networks",
    "protocols",
    "records",
    "report",
    "scenarios",
    "training",
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "L2",
    "AttackResult",
    "Cosine",
    "Embedder",
    "Euclidean",
    "Linf",
    "attacks",
    "audit",
    "data",
    "defenses",
    "embedders",
    "images",
    "index",
    "metrics",
    "networks",
    "objectives",
    "protocols",
    "records",
    "report",
    "scenarios",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"embattle.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"embattle.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'embattle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
