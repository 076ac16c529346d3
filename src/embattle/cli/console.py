"""Where tables are printed: as wide as the terminal, and wide enough to be read where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Tables are made for so many columns; what cuts them narrower makes words into syllables.
_LEAST = 80


def stdout(piped: int = _LEAST) -> Console:
    """The console of stdout.

    Args:
        piped: columns where stdout is a file or a pipe, unless $COLUMNS says otherwise; at least 80 either way.
    """
    from rich.console import Console

    found = Console()
    if found.is_terminal:
        return found
    # Left alone, it would take the width of whatever terminal stdin or stderr are, which is not what is written to.
    wanted = os.environ.get("COLUMNS", "")
    return Console(width=max(_LEAST, int(wanted) if wanted.isdigit() else piped))
