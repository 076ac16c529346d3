"""Who is being worked on right now: perturbations in flight, the pictures they sit on, and their state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from embattle.attacks.tree import Tree, join, take
from embattle.budget import Budget
from embattle.rng import Rows


@dataclass(frozen=True, kw_only=True)
class Job:
    """One start of one perturbation; `rows` are the positions of its pictures."""

    perturbation: int
    restart: int
    rows: Tensor


@dataclass(frozen=True, kw_only=True)
class Flight:
    """Perturbations in flight (first axis S) and the pictures they sit on (first axis n).

    Args:
        jobs: one per perturbation.
        delta: (S, C, H, W).
        step: (S,) steps made.
        state: the update rule's state, first axis S.
        rows: (n,) positions of the pictures.
        owner: (n,) which perturbation of this flight each picture carries.
        clean: (n, C, H, W) the pictures without perturbation.
        constants: the objective's constants, first axis n.
    """

    jobs: tuple[Job, ...]
    delta: Tensor
    step: Tensor
    state: Tree
    rows: Tensor
    owner: Tensor
    clean: Tensor
    constants: Tree

    @classmethod
    def enter(
        cls,
        jobs: Sequence[Job],
        x: Tensor,
        ids: Sequence[str],
        seed: int,
        *,
        attack_start: str,
        budget: Budget,
        init: Callable[[Tensor], Tree],
        constants: Callable[[Tensor], Tree],
        averaged: bool,
    ) -> Flight:
        """Fresh perturbations at their starts."""
        first = x[torch.stack([job.rows[0] for job in jobs])]
        delta = _starts(jobs, first, ids, seed, attack_start, budget)
        rows = torch.cat([job.rows for job in jobs])
        owner = torch.cat([torch.full((len(job.rows),), i) for i, job in enumerate(jobs)])
        flight = cls(
            jobs=tuple(jobs), delta=delta, step=torch.zeros(len(jobs), dtype=torch.long), state={}, rows=rows, owner=owner,
            clean=x[rows], constants=constants(rows),
        )  # fmt: skip
        delta = PixelSpace(budget=budget, flight=flight, averaged=averaged).project(delta)
        return replace(flight, delta=delta, state=init(delta))

    def joined(self, other: Flight) -> Flight:
        """This flight with more perturbations behind."""
        return Flight(
            jobs=self.jobs + other.jobs,
            delta=torch.cat([self.delta, other.delta]),
            step=torch.cat([self.step, other.step]),
            state=join(self.state, other.state),
            rows=torch.cat([self.rows, other.rows]),
            owner=torch.cat([self.owner, other.owner + len(self.jobs)]),
            clean=torch.cat([self.clean, other.clean]),
            constants=join(self.constants, other.constants),
        )

    def only(self, slots: Tensor) -> tuple[Flight, Tensor]:
        """The given perturbations with their pictures, and which of this flight's pictures those are."""
        if len(slots) == len(self.jobs):
            return self, torch.arange(len(self.rows))
        new_place = torch.full((len(self.jobs),), -1)
        new_place[slots] = torch.arange(len(slots))
        rows = torch.nonzero(new_place[self.owner] >= 0).flatten()
        chosen = Flight(
            jobs=tuple(self.jobs[i] for i in slots.tolist()), delta=self.delta[slots], step=self.step[slots],
            state=take(self.state, slots), rows=self.rows[rows], owner=new_place[self.owner[rows]],
            clean=self.clean[rows], constants=take(self.constants, rows),
        )  # fmt: skip
        return chosen, rows

    def moved(self, delta: Tensor, state: Tree) -> Flight:
        """The flight one step later."""
        return replace(self, delta=delta, state=state, step=self.step + 1)

    @cached_property
    def places(self) -> Tensor:
        """(S,) which perturbation of the whole call each is."""
        return torch.tensor([job.perturbation for job in self.jobs])

    @property
    def alone(self) -> bool:
        """Whether no perturbation is shared: rows enter in the order of their perturbations, so owner is 0, 1, 2, ..."""
        return len(self.rows) == len(self.jobs)

    def per_row(self, values: Tensor) -> Tensor:
        """(S, ...) per perturbation -> (n, ...) per picture."""
        return values if self.alone else values[self.owner]

    def pictures(self) -> Tensor:
        """The adversarial pictures in flight, (n, C, H, W) in [0, 1]."""
        return (self.clean + self.per_row(self.delta)).clamp_(0, 1)

    def keys(self, seed: int, ids: Sequence[str], *, live: bool) -> Rows:
        """What random draws of this iteration are keyed by."""
        owners = self.owner.tolist()
        names = tuple(
            _restarted(ids[row], self.jobs[slot].restart) for row, slot in zip(self.rows.tolist(), owners, strict=True)
        )
        steps = self.step.tolist()
        return Rows(seed=seed, ids=names, step=tuple(steps[slot] for slot in owners), live=live)

    def mean_over_rows(self, values: Tensor) -> Tensor:
        """(n, ...) per picture -> (S, ...) mean per perturbation; a picture alone keeps its value to the bit."""
        if self.alone:
            return values
        total = torch.zeros(len(self.jobs), *values.shape[1:], dtype=values.dtype, device=values.device)
        total.index_add_(0, self.owner.to(values.device), values)
        sizes = torch.bincount(self.owner, minlength=len(self.jobs)).to(values.device)
        return total / sizes.view(-1, *[1] * (values.ndim - 1))

    def mean_loss(self, loss: Tensor) -> Tensor:
        """(n,) per picture -> (S,) mean over those of a perturbation's pictures where it is finite; -inf where none is."""
        if self.alone:
            return loss
        finite = torch.isfinite(loss)
        share = self.mean_over_rows(finite.to(loss.dtype))
        mean = self.mean_over_rows(torch.where(finite, loss, torch.zeros_like(loss))) / share
        return torch.where(share > 0, mean, torch.full_like(mean, -math.inf))

    def all_rows(self, flags: Tensor) -> Tensor:
        """(n,) per picture -> (S,) whether every picture of the perturbation has it."""
        if self.alone:
            return flags.cpu()
        failing = torch.bincount(self.owner[~flags.cpu()], minlength=len(self.jobs))
        return failing == 0


@dataclass(frozen=True, kw_only=True)
class PixelSpace:
    """Where perturbations of a flight may be: the budget's ball cut with the pixel box of their pictures.

    `averaged`: a shared perturbation becomes the mean of its copies clipped per picture; else it has the whole ball.
    """

    budget: Budget
    flight: Flight
    averaged: bool

    def project(self, delta: Tensor) -> Tensor:
        """Back into the ball, then clipped per picture."""
        delta = self.budget.project(delta)
        if not (self.averaged or self.flight.alone):
            return delta
        clean = self.flight.clean
        return self.flight.mean_over_rows((clean + self.flight.per_row(delta)).clamp_(0, 1).sub_(clean))


def _starts(jobs: Sequence[Job], first: Tensor, ids: Sequence[str], seed: int, attack_start: str, budget: Budget) -> Tensor:
    """Where each perturbation starts, (S, C, H, W); all that draw alike draw in one call, each by its own key."""
    delta = torch.zeros_like(first)
    kinds = [attack_start if job.restart == 0 else "random" for job in jobs]
    for kind, draw in (("random", budget.start), ("nudge", budget.nudge)):
        slots = [slot for slot, own in enumerate(kinds) if own == kind]
        if slots:
            keys = Rows(seed=seed, ids=tuple(_key(jobs[slot], ids) for slot in slots), step=(0,) * len(slots))
            delta[slots] = draw(keys, first[slots])
    return delta


def _key(job: Job, ids: Sequence[str]) -> str:
    # A shared perturbation is keyed by all its pictures, in whatever order they were given.
    names = sorted(ids[row] for row in job.rows.tolist())
    return _restarted("\x1e".join(names), job.restart)


def _restarted(name: str, restart: int) -> str:
    return name if restart == 0 else f"{name}\x1drestart {restart}"
