"""`embattle list`: what there is, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embattle.cli.catalogue import KINDS
from embattle.cli.console import stdout

if TYPE_CHECKING:
    from rich.table import Table

# Five columns of sentences: a file or a pipe has room for them.
_PIPED = 120

KindName = Annotated[
    str | None,
    typer.Argument(
        metavar="KIND",
        help=f"{', '.join(KINDS)}; all kinds if not given.",
    ),
]


def list_parts(kind: KindName = None) -> None:
    """List attacks, scenarios, networks and other parts."""
    console = stdout(piped=_PIPED)
    console.print(_overview() if kind is None else _parts(kind))
    more = "embattle list KIND, embattle show NAME" if kind is None else "embattle show NAME"
    console.print(f"More: {more}", highlight=False)


def _overview() -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, group in KINDS.items():
        names = [entry.name for entry in group.entries()]
        table.add_row(Text(label, "bold"), str(len(names)), Text(", ".join(names)))
    return table


def _parts(name: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from embattle.cli.catalogue import kind

    group = kind(name)
    entries = list(group.entries())
    marks = [{} if group.marks is None else group.marks(entry) for entry in entries]
    columns = {
        "name": [entry.name for entry in entries], "summary": [entry.summary for entry in entries],
        "paper": [entry.paper for entry in entries], "access": [entry.access for entry in entries],
        **{title: [mark[title] for mark in marks] for title in marks[0]},
        "differs": [entry.differs for entry in entries],
    }  # fmt: skip
    # A column in which nothing stands would take its width from those that say something.
    told = {title: cells for title, cells in columns.items() if any(cells)}
    table = Table(box=box.SIMPLE_HEAD)
    for title in told:
        # A word longer than its column goes on below: its end may be what somebody looks for.
        table.add_column(title, overflow="fold", no_wrap=title in ("name", "access", *marks[0]))
    for cells in zip(*told.values(), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table
