"""One cell of a published table: attack some pictures in one scenario, and measure them as the paper does.

Papers measure the float pictures an attack returns; what a saved 8-bit picture achieves is measured beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from embattle.attacks import Attack, Objective, apgd, pgd
from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.budget import Linf
from embattle.protocols.free_point import free_points
from embattle.protocols.protocol import Column
from embattle.scenarios import Measured, Scenario, Subject, named

Role = Literal["clean", "paper", "adaptive", "free"]
# Physical batch of the loop; fewer pictures than that would be padded for nothing.
_TILE = 32


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One column at one ε for the pictures of one seed.

    Args:
        column: what is measured.
        eps: Linf budget; 0 for the roles "clean" and "free".
        role: "paper" is the paper's own attack, "adaptive" the audit's default at equally many forwards, "free" the best
            embedding of unit length, whatever picture might have it.
        seed: of model, choice of pictures and targets.
        samples: ids of the attacked pictures.
    """

    column: Column
    eps: float
    role: Role
    seed: int
    samples: tuple[str, ...]


def attack_of(role: Role, eps: float) -> Attack:
    """The paper's step rule, or the adaptive attack with as many steps."""
    budget = Linf(eps)
    paper = pgd(budget=budget, rule="ranking")
    return paper if role == "paper" else apgd(budget=budget, steps=paper.steps)


def measure_cell(subject: Subject, cell: Cell) -> list[dict[str, Any]]:
    """A row for every picture: the scenario's metrics, the attacker's loss, and the cost."""
    scenario = named(cell.column.scenario)
    rows = subject.images.positions(cell.samples)
    aims = scenario.aims(subject, rows, cell.seed)
    if cell.role == "clean":
        return _rows(cell, scenario.measure(subject, rows, aims, subject.z[rows]))
    objective = without_criterion(scenario.objective(subject, rows, aims))
    if cell.role == "free":
        return _rows(cell, scenario.measure(subject, rows, aims, free_points(subject.embedder, objective, subject.z[rows])))
    return _attacked(subject, cell, scenario, rows, aims, objective)


def without_criterion(objective: Objective) -> Objective:
    """The objective judged by its loss alone: the paper's attacks know no success."""
    return replace(objective, k=None) if isinstance(objective, CandidateRank | QueryRank) else objective


def _attacked(
    subject: Subject, cell: Cell, scenario: Scenario, rows: Tensor, aims: Mapping[str, Tensor], objective: Objective
) -> list[dict[str, Any]]:
    attack, tile = attack_of(cell.role, cell.eps), min(_TILE, len(rows))
    result = attack(subject.embedder, subject.images.pixels(rows), objective, seed=cell.seed, ids=cell.samples, tile=tile)
    z = subject.embedder.embed(result.x_adv, tile=tile)
    saved = subject.embedder.embed(result.eight_bit_images, tile=tile)
    finite = torch.isfinite(z).all(1) & torch.isfinite(saved).all(1)
    stand_in = subject.z[rows]
    found, eight_bit = (
        scenario.measure(subject, rows, aims, torch.where(finite.unsqueeze(1), each, stand_in)) for each in (z, saved)
    )
    return _rows(cell, found, eight_bit, loss=result.loss, forwards=result.forwards, finite=finite)


def _rows(
    cell: Cell, found: Measured, eight_bit: Measured | None = None, *, loss: Tensor | None = None,
    forwards: Tensor | None = None, finite: Tensor | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    def values(measured: Measured | None, i: int) -> dict[str, float] | None:
        lost = finite is not None and not finite[i]
        return None if measured is None or lost else {name: float(each[i]) for name, each in measured.metrics.items()}

    return [
        {
            "row": "sample", "column": cell.column.scenario, "eps": cell.eps, "role": cell.role, "seed": cell.seed,
            "sample": sample, "metrics": values(found, i), "eight_bit": values(eight_bit, i),
            "loss": None if loss is None or not torch.isfinite(loss[i]) else float(loss[i]),
            "forwards": 0 if forwards is None else int(forwards[i]),
        }
        for i, sample in enumerate(cell.samples)
    ]  # fmt: skip


def chosen(ids: Sequence[str], order: Sequence[int], count: int) -> tuple[str, ...]:
    """The first `count` of a drawn order, in gallery order."""
    return tuple(ids[i] for i in sorted(order[:count]))
