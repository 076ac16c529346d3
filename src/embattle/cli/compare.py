"""`embattle compare`: two audits beside each other. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embattle.errors import ConfigError

First = Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of an audit.")]
Second = Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of another, such as that of a hardened model.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the page goes; runs/compare-<A>-<B> if not given.")]
Names = Annotated[str, typer.Option(metavar="A,B", help="What the page calls the two.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the comparison as Markdown instead of a table.")]


def compare(first: First, second: Second, out: Out = None, names: Names = "A,B", markdown: Markdown = False) -> None:
    """Lay two audits beside each other.

    Writes comparison.json, comparison.md and report.html. Where both attacked the same pictures of the same gallery, every
    difference is taken picture by picture.
    """
    called = [name.strip() for name in names.split(",")]
    if len(called) != 2 or not all(called) or called[0] == called[1]:
        raise ConfigError(
            f"--names {names!r} is not understood; write two different names by a comma, such as before,after"
        )
    from embattle.cli.verdict import conclude_comparison
    from embattle.records import build_comparison
    from embattle.report import write_comparison

    comparison = build_comparison(first, second, names=(called[0], called[1]))
    folder = out or Path("runs") / "-".join(("compare", *(run["config_hash"][:8] for run in comparison["runs"])))
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} is the folder of a run, whose report would be lost; choose another --out")
    write_comparison(folder, comparison)
    conclude_comparison(folder, comparison, markdown=markdown)
