"""`embattle list`: what there is, by name."""

from __future__ import annotations

from typing import Annotated

import typer

KindName = Annotated[
    str | None,
    typer.Argument(
        metavar="[KIND]",
        help="attacks, objectives, updates, scenarios, networks, losses, datasets or models; all kinds if not given.",
    ),
]


def list_parts(kind: KindName = None) -> None:
    """List attacks, scenarios, networks and other parts by name."""
    from rich.console import Console

    console = Console()
    if kind is None:
        _overview(console)
    else:
        _table(console, kind)


def _overview(console: object) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from embattle.cli.catalogue import KINDS

    assert isinstance(console, Console)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, group in KINDS.items():
        names = [entry.name for entry in group.entries()]
        table.add_row(Text(label, "bold"), Text(str(len(names)), justify="right"), Text(", ".join(names)))
    console.print(table)
    console.print("More: embattle list KIND, embattle show NAME", highlight=False)
