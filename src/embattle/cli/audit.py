"""`embattle audit`: how easily can this system be manipulated?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embattle.cli import flags
from embattle.errors import ConfigError

if TYPE_CHECKING:  # torch is imported when the command runs, not for its help
    from embattle.audit import AuditConfig

Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; runs/<date>-audit-<hash> if not given.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with settings, see below; flags win over it.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="SCENARIO", help="What to try, such as ca+.w1; repeat it or separate by commas."),
]
Eps = Annotated[
    list[str] | None,
    typer.Option(metavar="NUMBER", help="Linf budget in (0, 1], such as 0.03 or 8/255; repeat it or use commas."),
]
AttackName = Annotated[
    str | None, typer.Option("--attack", metavar="NAME", help="apgd if not given; see: embattle list attacks.")
]
Suite = Annotated[
    str | None, typer.Option(metavar="NAME", help="ers: all attacks of the robustness score; other flags win over it.")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Gradient steps of the attack.")]
StepSize = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="Step of the attack in pixel units, such as 3/255; pgd and mi-fgsm.")
]
Rule = Annotated[str | None, typer.Option(metavar="NAME", help="Step rule of pgd: ranking is the ranking paper's.")]
Precision = Annotated[
    str | None,
    typer.Option(metavar="float32|bfloat16", help="Precision of gradient steps; what is measured is float32 either way."),
]
Attacked = Annotated[
    int | None, typer.Option("--attacked", "-n", metavar="N", help="Pictures attacked for each scenario and ε.")
]
Targets = Annotated[
    int | None,
    typer.Option(metavar="N", help="Random targets of universal scenarios, each its perturbation."),
]
K = Annotated[
    int | None,
    typer.Option("--k", metavar="N", help="Length of a list's first page; 1 % of the gallery where that is more."),
]
Own = Annotated[
    str | None,
    typer.Option(metavar="kept|replaced", help="What becomes of an attacked item's clean copy in the gallery."),
]
Preserve = Annotated[
    int | None, typer.Option(metavar="N", help="Neighbours that a semantics-preserving query attack keeps (G).")
]
Xi = Annotated[float | None, typer.Option(metavar="NUMBER", help="Weight of keeping them (ξ).")]
Findings = Annotated[int | None, typer.Option(metavar="N", help="Examples with pictures kept for each scenario and ε.")]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of the choice of pictures and targets, and of the attacks.")
]


EPILOG = """Keys of a --config FILE: suite, scenarios (the flag --only), eps, attack, steps, step_size, rule, precision,
attacked, targets, k, own, preserve, xi, findings, seed, and without a flag tile and shard.
For example: eps = ["8/255", 0.1]"""


def audit(
    context: typer.Context,
    data: flags.Data = "digits",
    model: flags.Model = None,
    data_root: flags.DataRoot = None,
    out: Out = None,
    config: Config = None,
    suite: Suite = None,
    only: Only = None,
    eps: Eps = None,
    attack: AttackName = None,
    steps: Steps = None,
    step_size: StepSize = None,
    rule: Rule = None,
    precision: Precision = None,
    attacked: Attacked = None,
    targets: Targets = None,
    k: K = None,
    own: Own = None,
    preserve: Preserve = None,
    xi: Xi = None,
    findings: Findings = None,
    seed: Seed = None,
    gate: flags.Gates = None,
    similarity: flags.SimilarityName = None,
    size: flags.Size = None,
    channels: flags.Channels = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    on_error: flags.OnError = "raise",
    threads: flags.Threads = None,
    device: flags.Device = None,
) -> None:
    """Measure how easily a system can be manipulated.

    A killed run goes on with the same command. Without --model a small network is trained to stand in for yours.
    """
    given = {
        "suite": suite, "scenarios": split(only), "eps": eps or None, "attack": attack, "steps": steps,
        "step_size": step_size, "rule": rule, "precision": precision, "attacked": attacked, "targets": targets, "k": k,
        "own": own, "preserve": preserve, "xi": xi, "findings": findings, "seed": seed,
    }  # fmt: skip
    described = flags.preprocessing(similarity=similarity, size=size, channels=channels, mean=mean, std=std)
    gates = flags.gates(gate)
    from embattle.cli.auditing import check_gates, load_subject, run_audit

    settings = _settings(config, {name: value for name, value in given.items() if value is not None})
    gallery, subject = load_subject(
        data, model, settings, data_root=data_root, on_error=on_error, threads=threads, device=device,
        preprocessing=described,
    )  # fmt: skip
    check_gates(gates, settings, gallery)
    run_audit(settings, gallery, subject, gates, command=context.obj, out=out)


def _settings(file: Path | None, given: Mapping[str, Any]) -> AuditConfig:
    import tomllib

    from embattle.audit import AuditConfig

    if file is None:
        return AuditConfig.parse(given)
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {file} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} is not TOML: {error}") from error
    return AuditConfig.parse({**written, **given})


def split(values: list[str] | None) -> tuple[str, ...] | None:
    """Names given by commas, by repetition, or both."""
    return tuple(part.strip() for value in values for part in value.split(",")) if values else None
