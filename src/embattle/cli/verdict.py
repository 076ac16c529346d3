"""The last step of an audit and of a rebuilt report: check the gates, write the page, print the table. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embattle.cli.console import stdout
from embattle.errors import ConfigError, GateFailed
from embattle.records import Gate, GateResult, build_reproduction, build_summary, build_transfer, write_json_atomic
from embattle.report import (
    comparison_markdown,
    comparison_table,
    render_markdown,
    render_reproduction,
    render_transfer_markdown,
    reproduction_headline,
    reproduction_table,
    terminal_table,
    transfer_tables,
    write_report,
    write_reproduction,
    write_transfer,
)


def conclude(run: Path, summary: dict[str, Any], gates: Sequence[Gate], *, markdown: bool = False) -> None:
    """Writes summary.json and report.html of a run, prints what they say, and judges the gates.

    Args:
        run: the run folder.
        summary: its summary; the results of the gates are entered.
        gates: conditions that must hold.
        markdown: print the report as Markdown instead of the table.

    Raises:
        GateFailed: a gate does not hold.
        ConfigError: a gate names no figure of this run; files and table are written all the same.
        InputError: the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    results: list[GateResult] = []
    unknown: ConfigError | None = None
    for gate in gates:
        try:
            results.append(gate.check(summary))
        except ConfigError as error:
            unknown = unknown or error
    summary["gates"] = [result.to_json() for result in results]
    write_json_atomic(run / "summary.json", summary)
    page = write_report(run)
    if markdown:
        print(render_markdown(summary), end="")
    else:
        _print(summary, results, page)
    if unknown is not None:
        raise unknown
    missed = [result.expression for result in results if not result.passed]
    if missed:
        raise GateFailed(f"{len(missed)} of {len(results)} gates failed: {'; '.join(missed)}")


def write_unfinished(run: Path) -> Path:
    """Writes summary.json and report.html of an audit that was stopped; its gates are judged when it is finished.

    Raises:
        InputError: the folder cannot be read or written.
        RunIncomplete: the disk is full.
    """
    write_json_atomic(run / "summary.json", build_summary(run))
    return write_report(run)


def write_unfinished_reproduction(run: Path) -> None:
    """Writes result.json, result.md and result.csv of a reproduction that was stopped.

    Raises:
        InputError: the folder cannot be read or written.
        RunIncomplete: the disk is full.
    """
    write_reproduction(run, build_reproduction(run))


def conclude_reproduction(run: Path, result: dict[str, Any], *, markdown: bool = False) -> None:
    """Writes result.json, result.md and result.csv of a run and prints what they say.

    Raises:
        GateFailed: a finished run falls short of its paper by more than a tolerance: an attack is weaker, or a defended
            model easier to attack.
        InputError: the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    chart = write_reproduction(run, result)
    if markdown:
        print(render_reproduction(result), end="")
    else:
        console = stdout()
        console.print(reproduction_table(result))
        if not result["complete"]:
            units = result["units"]
            console.print(f"unfinished: {units['done']} of {units['planned']} units; the same reproduce command goes on")
        else:
            console.print(reproduction_headline(result), markup=False, highlight=False, style="bold")
        console.print(f"result  {run / 'result.md'}", markup=False, soft_wrap=True, highlight=False)
        if chart is not None:
            console.print(f"chart   {chart}", markup=False, soft_wrap=True, highlight=False)
    short = result["short"]
    if any(short.values()) and result["complete"]:
        whole = sum(result["verdicts"].values())
        told = {
            "attack": "show an attack weaker than the paper's",
            "defense": "show a defense easier to attack than the paper's",
        }
        raise GateFailed("; ".join(f"{short[kind]} of {whole} figures {why}" for kind, why in told.items() if short[kind]))


def write_unfinished_transfer(run: Path) -> Path:
    """Writes summary.json, report.html and result.md of a transfer that was stopped.

    Raises:
        InputError: the folder cannot be read or written.
        RunIncomplete: the disk is full.
    """
    return write_transfer(run, build_transfer(run))


def conclude_transfer(run: Path, record: dict[str, Any], *, markdown: bool = False) -> None:
    """Writes summary.json, report.html and result.md of a transfer and prints what they say.

    Raises:
        InputError: the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    page = write_transfer(run, record)
    if markdown:
        print(render_transfer_markdown(record), end="")
        return
    console = stdout()
    console.print(transfer_tables(record))
    if not record["complete"]:
        units = record["units"]
        console.print(f"unfinished: {units['done']} of {units['planned']} units; the same transfer command goes on")
    console.print(f"report  {page}", markup=False, soft_wrap=True, highlight=False)


def conclude_comparison(folder: Path, comparison: dict[str, Any], *, markdown: bool = False) -> None:
    """Prints what a comparison says, and where its page is."""
    if markdown:
        print(comparison_markdown(comparison), end="")
        return
    console = stdout()
    console.print(comparison_table(comparison))
    console.print(f"report  {folder / 'report.html'}", markup=False, soft_wrap=True, highlight=False)


def _print(summary: dict[str, Any], results: Sequence[GateResult], page: Path) -> None:
    console = stdout()
    console.print(terminal_table(summary))
    for warning in summary["warnings"]:
        console.print(f"WARNING  {warning}", markup=False, style="bold")
    for result in results:
        console.print(f"{'pass' if result.passed else 'FAIL'}  {result.expression}  {result.why}", markup=False)
    if not summary["complete"]:
        units = summary["units"]
        console.print(f"unfinished: {units['done']} of {units['planned']} units; the same audit command goes on")
    console.print(f"report  {page}", markup=False, soft_wrap=True, highlight=False)
