"""`embattle report`: builds the page of a run again, from what it measured. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embattle.cli import flags
from embattle.errors import EmbattleError, InputError, RunIncomplete

if TYPE_CHECKING:
    from embattle.records import Gate

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that embattle audit, harden or reproduce printed.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the report as Markdown instead of a table.")]


def report(run: Run, gate: flags.Gates = None, markdown: Markdown = False) -> None:
    """Build a run's report again, on any machine.

    Writes summary.json and report.html anew from the run's configuration and results. Gates of the audit are judged
    again; gates given here are judged beside them, in this report only. Of a transfer it writes result.md as well; of a
    reproduction result.json, result.md and result.csv; of a hardening comparison.json, comparison.md and report.html.
    """
    given = flags.gates(gate, "report")
    from embattle.cli.verdict import conclude, conclude_reproduction, conclude_transfer
    from embattle.records import build_reproduction, build_summary, build_transfer
    from embattle.records.reproduction import PAPER_FILE

    if not (run / "config.json").is_file() and (run.is_file() or run.is_dir()):
        raise InputError(_no_run(run))
    name = _name(run)
    reproduction = name not in ("audit", "transfer", "harden") or (run / PAPER_FILE).is_file()
    if reproduction and given:
        raise InputError(f"{run} is a reproduction of {name}, which is judged by its paper; leave --gate out")
    if name == "transfer" and given:
        raise InputError(f"{run} is a transfer, which has no gates; leave --gate out, or put gates on an audit")
    if reproduction and not (run / PAPER_FILE).is_file():
        raise InputError(
            f"{run} is a reproduction of {name} without its {PAPER_FILE}, which holds the paper's figures; the same "
            f"embattle reproduce command writes it again and goes on"
        )
    gates = _with_those_of_the_audit(given, run)
    try:
        if name == "harden":
            _hardening(run, given, markdown=markdown)
            return
        if reproduction:
            conclude_reproduction(run, build_reproduction(run), markdown=markdown)
            return
        if name == "transfer":
            conclude_transfer(run, build_transfer(run), markdown=markdown)
            return
        summary = build_summary(run)
        conclude(run, summary, gates, markdown=markdown)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, ArithmeticError, OverflowError) as error:
        if isinstance(error, EmbattleError):
            raise
        # A run folder comes from outside: records that this version did not write are no bug of it.
        raise InputError(
            f"{run} holds records that cannot be read ({type(error).__name__}: {error}); they are damaged, or of another "
            f"version: start the {f'reproduction of {name}' if reproduction else name} again in a new folder"
        ) from error
    if gates and not summary["complete"]:
        done, planned = summary["units"]["done"], summary["units"]["planned"]
        raise RunIncomplete(
            f"gates are decided when a run is finished, and {run} has {done} of {planned} units; start the same audit "
            f"again, it goes on"
        )


def _hardening(run: Path, given: Sequence[Gate], *, markdown: bool) -> None:
    from embattle.cli.verdict import conclude_comparison
    from embattle.records import build_hardening
    from embattle.report import write_comparison

    if given:
        raise InputError(f"{run} is a hardening; give --gate to the report of one of its audits, such as {run / 'after'}")
    comparison = build_hardening(run)
    write_comparison(run, comparison)
    conclude_comparison(run, comparison, markdown=markdown)


def _no_run(given: Path) -> str:
    """What was named instead of a run folder, and what to name."""
    wanted = "name the folder that embattle audit or embattle reproduce printed"
    trained = [given] if given.is_file() else sorted(given.glob("*.safetensors"))
    if trained and trained[0].suffix == ".safetensors":
        what = "is a model" if given.is_file() else "holds models, such as those of embattle train, and no run"
        return (
            f"{given} {what}, and a model has no report; audit it with: embattle audit --model checkpoint:{trained[0]}; or "
            f"{wanted}"
        )
    if given.is_file():
        return f"{given} is a file; {wanted}"
    return f"{given} holds no run (it has no config.json); {wanted}"


def _name(run: Path) -> str:
    """Of the verb or the protocol that made the run; a damaged configuration is told of by whoever reads all of it."""
    from embattle.records.summary import read_record

    try:
        return str(read_record(run / "config.json", {"hash": str}).get("name", "audit"))
    except InputError:
        return "audit"


def _with_those_of_the_audit(given: Sequence[Gate], run: Path) -> list[Gate]:
    from embattle.records import load_summary, parse_gate

    try:
        rows = load_summary(run).get("gates", ())
        audited = [parse_gate(str(row["expression"])) for row in rows if row.get("given", "audit") == "audit"]
    except (InputError, AttributeError, KeyError, TypeError):
        audited = []  # no summary yet, or a damaged one: it is about to be written anew
    texts = {gate.expression for gate in audited}
    return audited + [gate for gate in given if gate.expression not in texts]
