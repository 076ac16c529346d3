"""Where models come from: one file per scheme of a model specification, registered under the scheme's name."""

from __future__ import annotations

from embattle.registry import Registry

ADAPTERS: Registry = Registry("model source", "embattle.embedders.adapters")
