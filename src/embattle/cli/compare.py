"""`embattle compare`: two audits beside each other. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embattle.errors import ConfigError, EmbattleError, InputError

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

    try:
        comparison = build_comparison(first, second, names=(called[0], called[1]))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, EmbattleError):
            raise
        # Run folders come from outside: records that this version did not write are no bug of it.
        raise InputError(
            f"{first} or {second} holds records that cannot be read ({type(error).__name__}: {error}); they are damaged, "
            f"or of another version: make that audit again in a new folder"
        ) from error
    folder = out or Path("runs") / "-".join(("compare", *(_short(run["config_hash"]) for run in comparison["runs"])))
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} is the folder of a run, whose report would be lost; choose another --out")
    write_comparison(folder, comparison)
    conclude_comparison(folder, comparison, markdown=markdown)


def _short(digest: str) -> str:
    """The beginning of a hash; of what only claims to be one, such as a path, nothing that names a folder."""
    return "".join(letter for letter in digest[:8] if letter in "0123456789abcdef")
