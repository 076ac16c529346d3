"""One unit of an audit: attack some pictures in one scenario at one ε, measure their 8-bit forms, keep a few to show."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from embattle.attacks import ATTACKS, Attack
from embattle.audit.config import AuditConfig
from embattle.audit.findings import Finding, exhibits
from embattle.budget import Linf
from embattle.errors import ConfigError
from embattle.runs import Output
from embattle.scenarios.scenario import Measured, Scenario
from embattle.scenarios.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Scenario, ε and the pictures of one unit; ε = 0 measures the clean system."""

    scenario: Scenario
    eps: float
    samples: tuple[str, ...]
    findings: int


def build_attack(config: AuditConfig, eps: float) -> Attack:
    """The configured attack within Linf ε.

    Raises:
        ConfigError: steps, a step size or a step rule for an attack that has none.
        BudgetError: an unknown step rule, or one together with steps or a step size.
    """
    build = ATTACKS[config.attack].build
    parts: dict[str, Any] = {}
    if config.steps is not None:
        parts["steps"] = config.steps
    if config.step_size is not None:
        parts["step_size"] = config.step_size
    if config.rule:
        parts["rule"] = config.rule
    taken = inspect.signature(build).parameters
    for name in parts:
        if name not in taken:
            able = [entry.name for entry in ATTACKS if name in inspect.signature(entry.build).parameters]
            raise ConfigError(
                f"attack {config.attack!r} has no setting {name!r}; leave it out, or choose another attack: "
                f"{', '.join(able)}"
            )
    attack: Attack = build(budget=Linf(eps), **parts)
    return replace(attack, precision=config.precision)


@dataclass(frozen=True, kw_only=True)
class Crafted:
    """What an attack made of a unit's pictures.

    Args:
        saved: (n, C, H, W) uint8, as a file holds them.
        levels: (n,) largest change of a pixel, in grey levels.
        status: the attack's own, one per picture.
        cost: (n,) forwards and backwards of each.
        seconds: wall time of the attack.
    """

    saved: Tensor
    levels: Tensor
    status: Sequence[str]
    cost: Mapping[str, Tensor]
    seconds: float


def attack_cell(subject: Subject, cell: Cell, config: AuditConfig) -> Output:
    """Rows for every picture of the cell, and findings with their pictures."""
    aims = cell.scenario.aims(subject, subject.images.positions(cell.samples), config.seed)
    return judge(subject, cell, config, aims, craft(subject, cell, config, aims) if cell.eps else None)


def craft(subject: Subject, cell: Cell, config: AuditConfig, aims: Mapping[str, Tensor]) -> Crafted:
    """Attacks the cell's pictures on a model; ε must be above 0."""
    rows = subject.images.positions(cell.samples)
    objective = cell.scenario.objective(subject, rows, aims)
    attack, x = build_attack(config, cell.eps), subject.images.pixels(rows)
    result = attack(subject.embedder, x, objective, seed=config.seed, ids=cell.samples, tile=config.tile)
    saved = result.eight_bit_images.cpu()
    changed = _levels(saved, subject.images.images[rows])
    assert int(changed.max()) <= math.floor(255 * cell.eps + 1e-6), "a saved picture left the budget"
    cost = {"forwards": result.forwards, "backwards": result.backwards}
    return Crafted(saved=saved, levels=changed, status=result.status, cost=cost, seconds=result.seconds)


def judge(subject: Subject, cell: Cell, config: AuditConfig, aims: Mapping[str, Tensor], made: Crafted | None) -> Output:
    """What a model makes of the pictures, wherever they were crafted; None: of the clean ones."""
    rows = subject.images.positions(cell.samples)
    clean = cell.scenario.measure(subject, rows, aims, subject.z[rows])
    if made is None:
        return Output(rows=[_row(cell, i, clean, clean, "scored", None) for i in range(len(rows))])
    z = subject.embedder.embed(made.saved, tile=config.tile)
    # What counts is the saved picture: an attack that met a NaN on its way may still have won.
    finite = torch.isfinite(z).all(1)
    measured = cell.scenario.measure(subject, rows, aims, torch.where(finite.unsqueeze(1), z, subject.z[rows]))
    statuses = _statuses(made.status, finite, made.levels > 0, measured, clean)
    records = [_row(cell, i, measured, clean, statuses[i], made.cost) for i in range(len(rows))]
    found = [i for i in _most_telling(measured, clean, finite) if statuses[i] == "success"][: cell.findings]
    findings = [
        Finding(
            row=int(rows[i]), saved=made.saved[i], z=z[i : i + 1], aims={k: v[i : i + 1] for k, v in aims.items()},
            levels=int(made.levels[i]), forwards=int(made.cost["forwards"][i]),
        )
        for i in found
    ]  # fmt: skip
    shown, blobs = exhibits(subject, cell.scenario, cell.eps, findings)
    return Output(rows=[*records, *shown], blobs=blobs, cost={"samples": float(len(rows))})


def _row(
    cell: Cell, i: int, measured: Measured, clean: Measured, status: str, cost: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    undefined = bool(clean.goal[i])
    lost = status == "non_finite"
    return {
        "row": "sample", "threat": cell.scenario.name, "eps": cell.eps, "sample": cell.samples[i], "status": status,
        # What already held before the attack is no success of the attacker: undefined, counted as such.
        "success": None if undefined else bool(measured.goal[i]) and not lost,
        "metrics": {name: None if lost else _defined(float(values[i])) for name, values in measured.metrics.items()},
        "cost": {name: int(cost[name][i]) if cost else 0 for name in ("forwards", "backwards")},
    }  # fmt: skip


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _statuses(attack: Sequence[str], finite: Tensor, moved: Tensor, measured: Measured, clean: Measured) -> list[str]:
    """The attack's own status, with success judged by the scenario on the saved picture."""
    statuses = []
    for i, status in enumerate(attack):
        if not finite[i]:
            statuses.append("non_finite")
        elif measured.goal[i] and not clean.goal[i]:
            statuses.append("success")
        elif status == "non_finite" and not moved[i]:
            # The model broke at every step, and what was saved is the clean picture: no strength of the system.
            statuses.append("non_finite")
        else:
            statuses.append("zero_gradient" if status == "zero_gradient" else "failed")
    return statuses


def _most_telling(measured: Measured, clean: Measured, finite: Tensor) -> list[int]:
    """Positions by how far the scenario's first metric moved, farthest first."""
    name = next(iter(measured.metrics))
    moved = (measured.metrics[name].double() - clean.metrics[name].double()).abs()
    order: list[int] = torch.where(finite, moved, -1.0).argsort(descending=True, stable=True).tolist()
    return order


def _levels(saved: Tensor, clean: Tensor) -> Tensor:
    return (saved.int() - clean.int()).abs().flatten(1).amax(1)
