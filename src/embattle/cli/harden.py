"""`embattle harden`: trains a model against attacks and lays what it was beside what it has become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embattle.cli import flags
from embattle.cli.audit import Attacked, K, Only, Suite, split
from embattle.errors import ConfigError

Defense = Annotated[str, typer.Option(metavar="NAME", help="How it is trained; see: embattle list defenses.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; runs/<date>-harden-<hash> if not given.")]
Eps = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="Linf budget trained against, such as 0.03 or 8/255 (the default).")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Gradient steps of the attack inside; 10 if not given.")]
StepSize = Annotated[str | None, typer.Option(metavar="NUMBER", help="Size of such a step; 2.5 ε / steps if not given.")]
Precision = Annotated[
    str | None, typer.Option(metavar="float32|bfloat16", help="Precision of those steps; weights learn in float32.")
]
BatchNorm = Annotated[
    str | None,
    typer.Option(metavar="train|frozen", help="Whether batch-norm layers learn; frozen, with --fresh train, if not given."),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train the model's network from fresh weights, as the papers do.")]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="Passes over the training pictures; 5 if not given.")]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Pictures a step; 128 if not given.")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="NUMBER", help="Of Adam; 1e-4, with --fresh 1e-3, if not given.")
]
Loss = Annotated[str | None, typer.Option(metavar="NAME", help="Of defenses that use labels; see: embattle list losses.")]
Margin = Annotated[float | None, typer.Option(metavar="NUMBER", help="Of that loss.")]
Pictures = Annotated[
    int | None, typer.Option(metavar="N", help="Train on so many of the training pictures; all if not given.")
]
AuditEps = Annotated[
    list[str] | None,
    typer.Option(metavar="NUMBER", help="Budgets of both audits; the audit's own and --eps if not given."),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of training and audits.")]


def harden(
    context: typer.Context,
    defense: Defense,
    data: flags.Data = "digits",
    model: flags.Model = None,
    data_root: flags.DataRoot = None,
    out: Out = None,
    eps: Eps = None,
    steps: Steps = None,
    step_size: StepSize = None,
    precision: Precision = None,
    batch_norm: BatchNorm = None,
    fresh: Fresh = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    loss: Loss = None,
    margin: Margin = None,
    pictures: Pictures = None,
    suite: Suite = None,
    only: Only = None,
    audit_eps: AuditEps = None,
    attacked: Attacked = None,
    k: K = None,
    seed: Seed = None,
    similarity: flags.SimilarityName = None,
    size: flags.Size = None,
    channels: flags.Channels = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    on_error: flags.OnError = "raise",
    threads: flags.Threads = None,
    device: flags.Device = None,
) -> None:
    """Train a model against attacks, and audit it before and after.

    The run folder gets hardened.safetensors, an audit before, one after, and report.html with both beside each other. A
    killed run goes on with the same command. Without --model a small network is trained to stand in for yours.
    """
    given = {
        "defense": defense, "eps": eps, "steps": steps, "step_size": step_size, "precision": precision,
        "batch_norm": batch_norm, "fresh": fresh, "epochs": epochs, "batch_size": batch_size, "lr": lr, "loss": loss,
        "margin": margin, "seed": seed,
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    tried = {
        "suite": suite, "scenarios": split(only), "eps": audit_eps or None, "attacked": attacked, "k": k, "seed": seed,
    }  # fmt: skip
    described = flags.preprocessing(similarity=similarity, size=size, channels=channels, mean=mean, std=std)
    if pictures is not None and pictures < 2:
        raise ConfigError(f"--pictures must be at least 2, not {pictures}")
    from embattle.cli.hardening import planned, run_hardening

    hardening = planned(
        settings, {name: value for name, value in tried.items() if value is not None}, data=data, model=model,
        data_root=data_root, on_error=on_error, threads=threads, device=device, preprocessing=described, pictures=pictures,
    )  # fmt: skip
    run_hardening(hardening, command=context.obj, out=out, model=model)
