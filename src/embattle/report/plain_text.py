"""Text from outside made harmless for Markdown, and tables of it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence


def plain(value: object) -> str:
    """Text from outside on one line, with everything that Markdown or HTML would act on made harmless."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)


def code(value: object) -> str:
    """Text from outside as inline code, fenced by more backticks than it holds itself."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
