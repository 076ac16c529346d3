"""One cell of a published table: attack some pictures in one scenario, and measure them as the paper does.

Papers measure the float pictures an attack returns; what a saved 8-bit picture achieves is measured beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from embattle.attacks import Attack, Objective, apgd, pgd, universal
from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.budget import Linf
from embattle.protocols.free_point import SEARCH, free_points
from embattle.protocols.perturbation_cells import perturb, rows_of
from embattle.protocols.protocol import Column, SignSteps
from embattle.runs import Output
from embattle.scenarios import Scenario, Subject, crafted_for, is_universal, named
from embattle.scenarios.universal import UniversalScenario

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
        samples: ids of the attacked pictures; of a universal scenario the numbers of its targets.
        steps: of the paper's attack; None: the ranking paper's rule.
    """

    column: Column
    eps: float
    role: Role
    seed: int
    samples: tuple[str, ...]
    steps: SignSteps | None = None


def attack_of(role: Role, eps: float, *, shared: bool = False, steps: SignSteps | None = None) -> Attack:
    """The paper's step rule, or the adaptive attack with as many steps; `shared`: of universal perturbations."""
    budget = Linf(eps)
    if shared:
        paper = universal(budget=budget)
    elif steps is None:
        paper = pgd(budget=budget, rule="ranking")
    else:
        paper = pgd(budget=budget, steps=steps.steps, step_size=steps.step_size)
    return paper if role == "paper" else apgd(budget=budget, steps=paper.steps, shared=shared, averaged=not shared)


def attack_names(eps: Sequence[float], columns: Sequence[Column], steps: SignSteps | None = None) -> dict[str, str]:
    """What the attacks of a run are, in full: part of its identity."""
    roles: tuple[Role, ...] = ("paper", "adaptive")
    attacks = {
        f"{role} {each:g}": f"{attack_of(role, each, steps=steps)!r}, tile {_TILE}" for role in roles for each in eps
    }
    if any(shares(column) for column in columns):
        attacks |= {
            f"universal {role} {each:g}": repr(attack_of(role, each, shared=True)) for role in roles for each in eps
        }
    return {**attacks, "free": SEARCH}


def shares(column: Column) -> bool:
    """Whether a column is of a universal scenario."""
    return is_universal(named(column.scenario))


def measure_cell(subject: Subject, cell: Cell, source: Subject | None = None) -> Output:
    """A row for every picture: the scenario's metrics, the attacker's loss, and the cost.

    Args:
        subject: the system that judges.
        cell: what is measured.
        source: the system that pictures are crafted on; None: the same.
    """
    judging, crafting = (replace(each, xi=cell.column.xi) for each in (subject, source or subject))
    work = _Work(subject=judging, source=crafting, cell=cell, scenario=named(cell.column.scenario))
    if is_universal(work.scenario):
        return _perturbations(subject, work.scenario, cell)
    if cell.role == "clean":
        return Output(rows=work.rows(work.measured(subject.z[work.places])))
    if cell.role == "free":
        found = free_points(subject.embedder, work.objective, subject.z[work.places], work.metric)
        return Output(rows=work.rows(work.measured(found)))
    return work.attacked()


def _perturbations(subject: Subject, scenario: UniversalScenario, cell: Cell) -> Output:
    attack = None if cell.role == "clean" else attack_of(cell.role, cell.eps, shared=True)
    tile = min(_TILE, len(subject.images))
    found = {name: perturb(subject, scenario, int(name), attack, seed=cell.seed, tile=tile) for name in cell.samples}
    shared = {"column": cell.column.attack, "eps": cell.eps, "role": cell.role, "seed": cell.seed}
    seconds = sum(each.seconds for each in found.values())
    return Output(rows=rows_of(shared, found), cost={"attack_seconds": seconds} if attack is not None else {})


def without_criterion(objective: Objective) -> Objective:
    """The objective judged by its loss alone: the paper's attacks know no success."""
    return replace(objective, k=None) if isinstance(objective, CandidateRank | QueryRank) else objective


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def chosen(ids: Sequence[str], order: Sequence[int], count: int) -> tuple[str, ...]:
    """The first `count` of a drawn order, in gallery order."""
    return tuple(ids[i] for i in sorted(order[:count]))


Metrics = Mapping[str, float | None] | None


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A cell with the system it is measured on, and the one it is crafted on."""

    subject: Subject
    source: Subject
    cell: Cell
    scenario: Scenario

    @cached_property
    def places(self) -> Tensor:
        """Gallery positions of the pictures."""
        return self.subject.images.positions(self.cell.samples)

    @cached_property
    def aims(self) -> Mapping[str, Tensor]:
        """Their targets."""
        return self.scenario.aims(self.subject, self.places, self.cell.seed)

    @property
    def objective(self) -> Objective:
        """What the attacks maximise."""
        own = self.scenario.aims(self.source, self.places, self.cell.seed)
        return without_criterion(self.scenario.objective(self.source, self.places, crafted_for(own, self.aims)))

    def metric(self, index: Tensor, z: Tensor) -> Tensor:
        """The printed metric of some of the pictures, embedded at `z`."""
        aims = {name: values[index] for name, values in self.aims.items()}
        return self.scenario.measure(self.subject, self.places[index], aims, z).metrics[self.cell.column.metric]

    def measured(self, z: Tensor) -> list[Metrics]:
        """Every metric of each picture; None where the model gave NaN for it."""
        finite = torch.isfinite(z).all(1)
        usable = torch.where(finite.unsqueeze(1), z, self.subject.z[self.places])
        metrics = self.scenario.measure(self.subject, self.places, self.aims, usable).metrics
        each = [{name: _defined(float(values[i])) for name, values in metrics.items()} for i in range(len(z))]
        return [found if known else None for found, known in zip(each, finite.tolist(), strict=True)]

    def attacked(self) -> Output:
        """The attack, measured on the float pictures it returns and on their saved form."""
        tile, judge = min(_TILE, len(self.places)), self.subject.embedder
        attack, x = attack_of(self.cell.role, self.cell.eps, steps=self.cell.steps), self.subject.images.pixels(self.places)
        result = attack(self.source.embedder, x, self.objective, seed=self.cell.seed, ids=self.cell.samples, tile=tile)
        found, eight_bit = (
            self.measured(judge.embed(pictures, tile=tile)) for pictures in (result.x_adv, result.eight_bit_images)
        )
        rows = self.rows(found, eight_bit, loss=result.loss.tolist(), forwards=result.forwards.tolist())
        return Output(rows=rows, cost={"attack_seconds": result.seconds})

    def rows(
        self, found: Sequence[Metrics], eight_bit: Sequence[Metrics] | None = None, *,
        loss: Sequence[float] | None = None, forwards: Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The record of each picture."""
        cell = self.cell
        return [
            {
                "row": "sample", "column": cell.column.attack, "eps": cell.eps, "role": cell.role, "seed": cell.seed,
                "sample": sample, "metrics": found[i], "eight_bit": None if eight_bit is None else eight_bit[i],
                "loss": None if loss is None or not math.isfinite(loss[i]) else loss[i],
                "forwards": 0 if forwards is None else forwards[i],
            }
            for i, sample in enumerate(cell.samples)
        ]  # fmt: skip
