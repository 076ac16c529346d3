"""Verbs put together, and exceptions turned into sentences and exit codes."""

from __future__ import annotations

import shlex
import sys
import traceback
from typing import Any

import typer

from embattle import __version__
from embattle.allocator import keep_freed_memory
from embattle.cli.audit import EPILOG, audit
from embattle.cli.compare import compare
from embattle.cli.doctor import doctor
from embattle.cli.harden import harden
from embattle.cli.list import list_parts
from embattle.cli.report import report
from embattle.cli.reproduce import reproduce
from embattle.cli.show import show
from embattle.cli.stopping import TERMINATED, terminating
from embattle.cli.train import train
from embattle.cli.transfer import transfer
from embattle.errors import EmbattleError, RunIncomplete

BUG = 70
# What some versions of typer return instead of passing Ctrl-C on.
_INTERRUPTED = 130
# Depending on its version typer brings its own copy of click: this finds the class its usage errors really have.
_CommandLineError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_HELP = """Tells how easily adversarial pictures can manipulate an image-embedding system, and shows it.

Start with: embattle audit
"""

app = typer.Typer(
    name="embattle", help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None,
)  # fmt: skip
app.command(epilog=EPILOG)(audit)
app.command()(report)
app.command()(train)
app.command()(harden)
app.command()(compare)
app.command()(transfer)
app.command()(reproduce)
app.command()(doctor)
app.command("list")(list_parts)
app.command()(show)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embattle {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits with its code."""
    # Here and not in `run`: the process is ours only when we were started as one.
    keep_freed_memory()
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs a command line (None: the process's own) and gives its exit code; every expected failure is one sentence."""
    with terminating() as terminated:
        code = _run(arguments)
    return TERMINATED if terminated() and code == RunIncomplete.exit_code else code


def _run(arguments: list[str] | None) -> int:
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(given, standalone_mode=False, prog_name="embattle", obj=shlex.join(["embattle", *given]))
    except _CommandLineError as error:
        error.show()
        return int(error.exit_code)
    except EmbattleError as error:
        return _say(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception:
        traceback.print_exc()
        return _say("this is a bug in Embattle; please report it with the lines above", BUG)
    if code == _INTERRUPTED:
        return _say("interrupted; the same command goes on", RunIncomplete.exit_code)
    return code if isinstance(code, int) else 0


def _say(sentence: str, code: int) -> int:
    print(f"embattle: {sentence}", file=sys.stderr)
    return code
