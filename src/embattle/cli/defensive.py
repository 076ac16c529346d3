"""What `embattle show` says of a defense: what it needs, which losses go with it, and what `embattle harden` sets of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embattle.errors import ConfigError

if TYPE_CHECKING:
    from embattle.defenses import HardenConfig
    from embattle.registry import Entry

_INDENT = 8
# Defaults follow other settings: what they become under these is said beside them.
_UNDER: Mapping[str, Mapping[str, Any]] = {
    "--fresh": {"fresh": True}, "--eps 4/255": {"eps": "4/255"}, "--similarity euclidean": {"similarity": "euclidean"},
}  # fmt: skip


def defensive(entry: Entry) -> str:
    """The description of the defense behind a registry entry, in 80 columns."""
    needs = labels(entry)["labels"]
    lines = [
        (inspect.getdoc(entry.build) or "").partition("\n\nRaises:")[0], "", f"{'labels':<{_INDENT}} {needs}",
        f"{'losses':<{_INDENT}} {', '.join(losses(entry)) or 'none: it keeps the embeddings of the model'}", "",
        "Flags of embattle harden and their defaults; its --help says what each is", *_flags(entry),
    ]  # fmt: skip
    return "\n".join(lines)


def labels(entry: Entry) -> dict[str, str]:
    """Whether it needs labels, for a column of a list."""
    return {"labels": "needed" if entry.build.needs_labels else "none"}  # type: ignore[attr-defined]


def losses(entry: Entry) -> list[str]:
    """The names of the metric losses it goes with; of a defense that needs no labels there are none."""
    from embattle.training import LOSSES

    if not entry.build.needs_labels:  # type: ignore[attr-defined]
        return []
    return [loss.name for loss in LOSSES if _settings(entry.name, {"loss": loss.name}) is not None]


def _settings(defense: str, given: Mapping[str, Any]) -> HardenConfig | None:
    """What becomes of a command line that gives these; None where it is refused."""
    from embattle.defenses import HardenConfig

    try:
        return HardenConfig.parse({"defense": defense, **given})
    except ConfigError:
        return None


def _flags(entry: Entry) -> Iterator[str]:
    """A line for each flag of `embattle harden` that is a setting of the training."""
    import typer.main

    from embattle.cli.app import app

    usual = _settings(entry.name, {})
    assert usual is not None
    group: Any = typer.main.get_command(app)
    # Similarity and device come with the model; a loss is set only where there is one.
    elsewhere = {"defense", "similarity", "threads", "device", *(() if losses(entry) else ("loss", "margin"))}
    told = {
        f"  {flag.opts[0]} {'' if flag.is_flag else flag.metavar}".rstrip(): _default(flag.name, usual)
        for flag in group.commands["harden"].params if flag.name in set(type(usual).model_fields) - elsewhere
    }  # fmt: skip
    widest = max(map(len, told))
    return (f"{flag:<{widest}}  {default}" for flag, default in told.items())


def _default(name: str, usual: HardenConfig) -> str:
    """Its default, and what the default is under other settings."""
    told = _plain(name, getattr(usual, name))
    for flag, given in _UNDER.items():
        changed = _settings(usual.defense, given)
        if name not in given and changed is not None and getattr(changed, name) != getattr(usual, name):
            told += f"; with {flag} {_plain(name, getattr(changed, name))}"
    return told


def _plain(name: str, value: Any) -> str:
    from embattle.report.figures import eps_text, number

    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "eps":
        return eps_text(value)
    return number(value) if isinstance(value, float) else str(value)
