"""The command line: one file per verb; what a verb needs is imported when it runs, so that help stays fast.

Exit codes: 0 fine, 1 a gate the owner named, or a check of doctor, does not hold, 2 usage or bad input, 3 the run is
incomplete, 143 the same after SIGTERM, 70 a bug of ours.
"""

from __future__ import annotations

from embattle.cli.app import main

__all__ = ["main"]
