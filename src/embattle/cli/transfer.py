"""`embattle transfer`: does a picture crafted on one model fool another one?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from embattle.cli import flags
from embattle.cli.audit import (
    Attacked,
    AttackName,
    Eps,
    Findings,
    K,
    Only,
    Own,
    Precision,
    Preserve,
    Rule,
    Seed,
    Steps,
    StepSize,
    Xi,
    split,
)
from embattle.errors import ConfigError

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="[NAME=]MODEL", help="KIND:PATH, a name of yours before it; give two or more."),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; runs/<date>-transfer-<hash> if not given.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the matrices as Markdown instead of tables.")]
_NAMED = re.compile(r"(?:(?P<name>[^=:]+)=)?(?P<spec>[^=:]+:.*)", re.DOTALL)


def transfer(
    context: typer.Context,
    model: Models = None,
    data: flags.Data = "digits",
    data_root: flags.DataRoot = None,
    out: Out = None,
    only: Only = None,
    eps: Eps = None,
    attack: AttackName = None,
    steps: Steps = None,
    step_size: StepSize = None,
    rule: Rule = None,
    precision: Precision = None,
    attacked: Attacked = None,
    k: K = None,
    own: Own = None,
    preserve: Preserve = None,
    xi: Xi = None,
    findings: Findings = None,
    seed: Seed = None,
    on_error: flags.OnError = "raise",
    threads: flags.Threads = None,
    device: flags.Device = None,
    markdown: Markdown = False,
) -> None:
    """Craft pictures on each model, judge them on all.

    Writes summary.json, report.html with a heat map for every threat, and result.md. The models must take as many planes;
    one that needs --similarity, --size, --mean or --std comes from a factory that returns an Embedder. A killed run goes on
    with the same command.
    """
    given = {
        "scenarios": split(only), "eps": eps or None, "attack": attack, "steps": steps, "step_size": step_size,
        "rule": rule, "precision": precision, "attacked": attacked, "k": k, "own": own, "preserve": preserve, "xi": xi,
        "findings": findings, "seed": seed,
    }  # fmt: skip
    specs = [_named(text) for text in model or ()]
    from embattle.cli.transferring import run_transfer

    run_transfer(
        {name: value for name, value in given.items() if value is not None}, specs, data, data_root=data_root,
        on_error=on_error, threads=threads, device=device, command=context.obj, out=out, markdown=markdown,
    )  # fmt: skip


def _named(text: str) -> tuple[str | None, str]:
    """The name before a model, if any, and the model."""
    match = _NAMED.fullmatch(text)
    if match is None:
        raise ConfigError(f"--model {text!r} is not understood; write KIND:PATH, or NAME=KIND:PATH with a name of yours")
    return match["name"], match["spec"]
