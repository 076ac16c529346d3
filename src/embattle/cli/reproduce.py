"""`embattle reproduce`: runs a published experiment again and lays the paper's figures beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embattle.cli import flags
from embattle.errors import ConfigError

if TYPE_CHECKING:  # torch is imported when the command runs, not for its help
    from embattle.runs import RunFolder

Name = Annotated[str, typer.Argument(metavar="PROTOCOL", help="Which experiment; see: embattle list protocols.")]
ScaleName = Annotated[
    str,
    typer.Option("--scale", metavar="smoke|cpu|paper", help="A minute, under an hour on two cores, or the paper's own."),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; runs/<date>-<protocol>-<hash> if not given.")]
Models = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of trained models; one that is there is not trained again.")
]
Attacked = Annotated[
    int | None,
    typer.Option("--attacked", "-n", metavar="N", help="Pictures attacked for each seed; the scale's if not given."),
]
Seeds = Annotated[
    str | None, typer.Option(metavar="NUMBERS", help="Seeds by commas, one model each; the scale's if not given.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the result as Markdown instead of a table.")]


def reproduce(
    context: typer.Context,
    name: Name,
    scale: ScaleName = "cpu",
    data_root: flags.DataRoot = None,
    models: Models = Path("checkpoints"),
    out: Out = None,
    attacked: Attacked = None,
    seeds: Seeds = None,
    threads: flags.Threads = None,
    device: flags.Device = None,
    markdown: Markdown = False,
) -> None:
    """Run a published experiment again.

    Writes result.json, result.md and result.csv into the run folder. A killed run goes on with the same command. Exit code
    1: a figure is weaker than the paper's by more than its tolerance.
    """
    wanted = None if seeds is None else _seeds(seeds)
    from embattle.cli.auditing import tell, tell_what_was_there, usable_device, use_threads
    from embattle.cli.progress import follow
    from embattle.cli.stopping import reporting
    from embattle.cli.verdict import conclude_reproduction, write_unfinished_reproduction
    from embattle.protocols import protocol
    from embattle.protocols import reproduce as run_protocol

    use_threads(threads)
    place = usable_device(device or "cpu")
    with reporting(write_unfinished_reproduction) as folder, follow() as progress:

        def begun(run: RunFolder) -> None:
            folder(run.path)
            tell_what_was_there(run)

        run, result = run_protocol(
            protocol(name), scale, attacked=attacked, seeds=wanted, data_root=data_root, models=models, out=out,
            device=place, command=context.obj, progress=progress, begun=begun, tell=tell,
        )  # fmt: skip
    conclude_reproduction(run.path, result, markdown=markdown)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--seeds {text!r} is not understood; write whole numbers by commas, such as 0,1,2") from None
