"""Search: which items of a gallery are nearest to a query."""

from __future__ import annotations

from embattle.index.exact import ExactIndex

__all__ = ["ExactIndex"]
