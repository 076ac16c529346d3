"""Flags that several verbs share: which model, which pictures, how the pictures reach the model, which gates must hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embattle.errors import ConfigError

if TYPE_CHECKING:  # imported when a verb runs, not for its help
    from embattle.records import Gate

Data = Annotated[
    str, typer.Option(metavar="DATA", help="The gallery: a folder of pictures, or a name from: embattle list datasets.")
]
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="KIND:PATH, such as module:package.module:factory; see: embattle list models."),
]
DataRoot = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the named data sets; $EMBATTLE_DATA if not given.")
]
Gates = Annotated[
    list[str] | None,
    typer.Option("--gate", metavar="CONDITION", help="What must hold, such as 'ca+.w1@0.03 > 40'; else exit code 1."),
]
SimilarityName = Annotated[
    str | None,
    typer.Option("--similarity", metavar="NAME", help="cosine or euclidean; a checkpoint has its own."),
]
Size = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="The model's input size, where the model does not say it.")
]
Channels = Annotated[
    int | None, typer.Option(metavar="1|3", help="Planes the model expects, where the model does not say it.")
]
Mean = Annotated[
    str | None, typer.Option(metavar="NUMBERS", help="Normalisation mean per channel, by commas, where the model has none.")
]
Std = Annotated[
    str | None, typer.Option(metavar="NUMBERS", help="Normalisation standard deviation per channel; goes with --mean.")
]
WhenDamaged = Literal["raise", "skip"]
OnError = Annotated[
    WhenDamaged,
    typer.Option(metavar="raise|skip", help="At a damaged picture in a folder: stop, or leave it out with a note."),
]
Threads = Annotated[int | None, typer.Option(metavar="N", help="Processor threads; torch's own choice if not given.")]

Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="cpu, or a torch device such as cuda:0; the model's own if not given, and cpu for a new one."
    ),
]


def preprocessing(
    *, similarity: str | None, size: int | None, channels: int | None, mean: str | None, std: str | None
) -> dict[str, Any]:
    """What was given of the flags that describe a model's input and similarity.

    Raises:
        ConfigError: a mean or std that is no list of numbers, or one without the other.
    """
    flags = {
        "similarity": similarity, "size": size, "channels": channels, "mean": _numbers(mean, "--mean"),
        "std": _numbers(std, "--std"),
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    # Legal in mathematics, but on a command line nearly always one flag forgotten: figures of another model.
    for name, missing, neutral in (("mean", "std", "1"), ("std", "mean", "0")):
        if name in given and missing not in given:
            nothing = ",".join(neutral for _ in given[name])
            raise ConfigError(
                f"--{name} was given without --{missing}, and models that normalise use both; if yours really does "
                f"not, write --{missing} {nothing}"
            )
    return given


def gates(texts: Sequence[str] | None, given: Literal["audit", "report"] = "audit") -> list[Gate]:
    """The gates named on the command line of a verb, read before anything runs: a typing error must not cost an audit.

    Raises:
        ConfigError: a text that is no gate.
    """
    from embattle.records import parse_gate

    return [parse_gate(text, given) for text in texts or ()]


def _numbers(text: str | None, flag: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{flag} {text!r} is not understood; write numbers separated by commas, one per channel"
        ) from None
