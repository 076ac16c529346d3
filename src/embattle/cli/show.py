"""`embattle show NAME`: all about one part."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embattle.cli.catalogue import Kind
    from embattle.registry import Entry

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a part, as in: embattle list.")]
_WIDEST = 80


def show(name: Name) -> None:
    """Show what a part does, its settings, its paper and an example."""
    from embattle.cli.catalogue import KINDS, find

    blocks = [_description(KINDS[label], entry, name) for label, entry in find(name)]
    typer.echo("\n\n".join(blocks))


def _description(kind: Kind, entry: Entry, asked: str) -> str:
    facts = {"kind": entry.kind, "paper": entry.paper, "access": entry.access, "differs": entry.differs}
    lines = [entry.name, "=" * len(entry.name), *(f"{key:<8} {value}" for key, value in facts.items() if value), ""]
    details = f"{_signature(entry)}\n\n{_explanation(entry)}" if kind.details is None else kind.details(entry)
    lines += [details, "", "Example", f"    {kind.example(entry, asked)}"]
    return "\n".join(lines)


def _explanation(entry: Entry) -> str:
    """The part's docstring without its doctests."""
    text = inspect.getdoc(entry.build) or "No description."
    return text.partition("\n>>> ")[0].rstrip()


def _signature(entry: Entry) -> str:
    """The call with every argument and its default, one a line where they do not fit into one."""
    parts: list[str] = []
    for parameter in inspect.signature(entry.build).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        # Modules that defer their annotations hold them as text, which would be printed in quotation marks.
        wanted = parameter.annotation if isinstance(parameter.annotation, str) else ""
        bare = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        default = "" if parameter.default is parameter.empty else f"{' = ' if wanted else '='}{parameter.default!r}"
        parts.append(f"{bare}{f': {wanted}' if wanted else ''}{default}")
    line = f"{entry.build.__qualname__}({', '.join(parts)})"
    if len(line) <= _WIDEST:
        return line
    return f"{entry.build.__qualname__}(\n" + "".join(f"    {part},\n" for part in parts) + ")"
