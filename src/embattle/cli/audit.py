"""`embattle audit`: how easily can this system be manipulated?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embattle.errors import ConfigError, GateFailed

if TYPE_CHECKING:  # torch is imported when the command runs, not for its help
    from embattle.audit import AuditConfig
    from embattle.records import Gate

Data = Annotated[str, typer.Option(help="digits, mnist, fashion_mnist, or a folder of pictures: the gallery.")]
Model = Annotated[
    str | None,
    typer.Option(help="checkpoint:PATH, module:package.module:factory or hf:PATH; a small one is trained if not given."),
]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the named data sets; $EMBATTLE_DATA if not given.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; runs/<date>-audit-<hash> if not given.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")]
Only = Annotated[list[str] | None, typer.Option(help="Scenario to run, such as ca+.w1; repeat or separate by commas.")]
Eps = Annotated[list[str] | None, typer.Option(help="Linf budget in [0, 1], such as 0.03 or 8/255; repeat or commas.")]
AttackName = Annotated[str | None, typer.Option("--attack", help="Attack by name; see: embattle list attacks.")]
Steps = Annotated[int | None, typer.Option(help="Gradient steps of the attack.")]
Rule = Annotated[str | None, typer.Option(help="Step rule of pgd: ranking is the ranking paper's.")]
Attacked = Annotated[int | None, typer.Option("--attacked", "-n", help="Pictures attacked for each scenario and ε.")]
K = Annotated[int | None, typer.Option("--k", help="Length of the first page of a list.")]
Own = Annotated[str | None, typer.Option(help="An attacked item's own clean copy: kept in the gallery, or replaced.")]
Preserve = Annotated[int | None, typer.Option(help="Neighbours that a semantics-preserving query attack keeps (G).")]
Xi = Annotated[float | None, typer.Option(help="Weight of keeping them (ξ).")]
Findings = Annotated[int | None, typer.Option(help="Examples with pictures kept for each scenario and ε.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the choice of pictures and targets, and of the attacks.")]
Gates = Annotated[
    list[str] | None, typer.Option("--gate", help="Condition that must hold, such as 'ca+.w1@0.03 > 40'; else exit 1.")
]
SimilarityName = Annotated[str | None, typer.Option("--similarity", help="cosine or euclidean (module: and hf: models).")]
Size = Annotated[int | None, typer.Option(help="The model's input size in pixels (module: models).")]
Channels = Annotated[int | None, typer.Option(help="Planes the model expects, 1 or 3 (module: models).")]
Mean = Annotated[str | None, typer.Option(help="Normalisation mean per channel, by commas (module: models).")]
Std = Annotated[str | None, typer.Option(help="Normalisation standard deviation per channel (module: models).")]
OnError = Annotated[
    Literal["raise", "skip"], typer.Option(help="A damaged picture in a folder: raise, or skip it with a note.")
]
Threads = Annotated[int | None, typer.Option(help="Processor threads; all cores if not given.")]


def audit(
    data: Data = "digits",
    model: Model = None,
    data_root: DataRoot = None,
    out: Out = None,
    config: Config = None,
    only: Only = None,
    eps: Eps = None,
    attack: AttackName = None,
    steps: Steps = None,
    rule: Rule = None,
    attacked: Attacked = None,
    k: K = None,
    own: Own = None,
    preserve: Preserve = None,
    xi: Xi = None,
    findings: Findings = None,
    seed: Seed = None,
    gate: Gates = None,
    similarity: SimilarityName = None,
    size: Size = None,
    channels: Channels = None,
    mean: Mean = None,
    std: Std = None,
    on_error: OnError = "raise",
    threads: Threads = None,
) -> None:
    """Measure how easily a search system can be manipulated; a killed run goes on with the same command."""
    given = {
        "scenarios": _split(only), "eps": _budgets(eps), "attack": attack, "steps": steps, "rule": rule,
        "attacked": attacked, "k": k, "own": own, "preserve": preserve, "xi": xi, "findings": findings, "seed": seed,
    }  # fmt: skip
    preprocessing = {
        "similarity": similarity, "size": size, "channels": channels, "mean": _numbers(mean, "--mean"),
        "std": _numbers(std, "--std"),
    }  # fmt: skip
    gates = _gates(gate or [])
    from embattle.cli.auditing import load_subject, run_audit

    settings = _settings(config, {name: value for name, value in given.items() if value is not None})
    gallery, embedder = load_subject(
        data, model, settings, data_root=data_root, on_error=on_error, threads=threads,
        preprocessing={name: value for name, value in preprocessing.items() if value is not None},
    )  # fmt: skip
    command = shlex.join(["embattle", *sys.argv[1:]])
    if not run_audit(settings, gallery, embedder, gates, command=command, out=out):
        raise GateFailed("a gate does not hold; see the table above")


def _settings(file: Path | None, flags: Mapping[str, Any]) -> AuditConfig:
    import tomllib

    from embattle.audit import AuditConfig

    if file is None:
        return AuditConfig.parse(flags)
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {file} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} is not TOML: {error}") from error
    return AuditConfig.parse({**written, **flags})


def _gates(texts: list[str]) -> list[Gate]:
    """Gates are read before anything runs: a typing error must not cost an audit."""
    from embattle.records import parse_gate

    return [parse_gate(text) for text in texts]


def _split(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for value in values for part in value.split(",")) if values else None


def _budgets(values: list[str] | None) -> tuple[float, ...] | None:
    parts = _split(values)
    return tuple(_fraction(part) for part in parts) if parts else None


def _fraction(text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"--eps {text!r} is not a number; write a decimal such as 0.03 or a fraction such as 8/255"
        ) from None


def _numbers(text: str | None, flag: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{flag} {text!r} is not understood; write numbers separated by commas, one per channel"
        ) from None
