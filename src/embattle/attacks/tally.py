"""What is known so far of every perturbation and picture: the best iterate, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from embattle.attacks.flight import Flight
from embattle.attacks.result import AttackResult
from embattle.attacks.tile import Evaluation
from embattle.budget import Budget


@dataclass
class Tally:
    """Best iterate per perturbation (first axis P) and costs per picture (first axis N)."""

    owners: Tensor
    delta: Tensor
    best: Tensor
    best_success: Tensor
    settled: Tensor
    loss: Tensor
    success: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradient: Tensor
    non_finite: Tensor

    @classmethod
    def empty(cls, x: Tensor, owners: Tensor) -> Tally:
        """Nothing tried yet: every picture is clean and worth nothing to the attacker."""
        count, n = int(owners.max()) + 1, len(x)
        return cls(
            owners=owners, delta=x.new_zeros(count, *x.shape[1:]), best=torch.full((count,), -math.inf),
            best_success=torch.zeros(count, dtype=torch.bool), settled=torch.zeros(count, dtype=torch.bool),
            loss=torch.full((n,), -math.inf), success=torch.zeros(n, dtype=torch.bool),
            forwards=torch.zeros(n, dtype=torch.int32), backwards=torch.zeros(n, dtype=torch.int32),
            zero_gradient=torch.zeros(n, dtype=torch.int32), non_finite=torch.zeros(n, dtype=torch.bool),
        )  # fmt: skip

    def count(self, rows: Tensor, *, forwards: int, backwards: Tensor | None = None) -> None:
        """Adds to the cost of the given pictures."""
        self.forwards[rows] += forwards
        if backwards is not None:
            self.backwards[rows] += backwards.to(torch.int32)

    def count_zero_gradient(self, rows: Tensor, still: Tensor) -> None:
        """Counts a step whose gradient was zero everywhere."""
        self.zero_gradient[rows] += still.cpu().to(torch.int32)

    def note_non_finite(self, rows: Tensor, bad: Tensor) -> None:
        """Remembers pictures whose loss or gradient was not finite at any step."""
        self.non_finite[rows] |= bad.cpu()

    def is_settled(self, perturbation: int) -> bool:
        """Whether it has left with a confirmed success."""
        return bool(self.settled[perturbation])

    def score(self, flight: Flight, seen: Evaluation, *, keep: Literal["best", "last"], at_end: Tensor) -> None:
        """Keeps the iterate in flight where it is better: success first, then loss. "last" looks at final iterates only."""
        if keep == "last" and not bool(at_end.any()):
            return
        places = flight.places
        loss = flight.mean_loss(seen.loss).cpu()
        success = self._slot_success(flight, seen)
        old_loss, old_success = self.best[places], self.best_success[places]
        better = (success & ~old_success) | ((success == old_success) & (loss > old_loss))
        if keep == "last":
            better &= at_end
        self._write(flight, seen, better & ~self.settled[places])

    def take(self, flight: Flight) -> None:
        """Takes the iterates in flight as they are, without a score."""
        self.delta[flight.places.to(self.delta.device)] = flight.delta

    def settle(self, flight: Flight, confirmed: Tensor, seen: Evaluation, rows: Tensor) -> None:
        """Takes the iterates in flight whose 8-bit pictures succeeded as final; `rows` maps them into `seen`."""
        part = Evaluation(
            loss=seen.loss[rows], success=seen.success[rows] if seen.success is not None else None, grad=None,
            finite=seen.finite[rows], steady=seen.steady[rows], sound=seen.sound,
        )  # fmt: skip
        self._write(flight, part, confirmed)
        self.settled[flight.places[confirmed]] = True

    def _slot_success(self, flight: Flight, seen: Evaluation) -> Tensor:
        if seen.success is None:
            return torch.zeros(len(flight.jobs), dtype=torch.bool)
        return flight.all_rows(seen.success)

    def _write(self, flight: Flight, seen: Evaluation, slots: Tensor) -> None:
        if not bool(slots.any()):
            return
        places = flight.places[slots]
        self.delta[places.to(self.delta.device)] = flight.delta[slots.to(flight.delta.device)]
        self.best[places] = flight.mean_loss(seen.loss).cpu()[slots]
        self.best_success[places] = self._slot_success(flight, seen)[slots]
        chosen = flight.per_row(slots)
        self.report(flight.rows[chosen], seen, chosen)

    def report(self, rows: Tensor, seen: Evaluation, chosen: Tensor | slice = slice(None)) -> None:
        """Takes loss and success of the given pictures from what was seen; `chosen` are their places in it."""
        self.loss[rows] = seen.loss.cpu()[chosen]
        if seen.success is not None:
            self.success[rows] = seen.success.cpu()[chosen]

    def result(
        self,
        x: Tensor,
        *,
        ids: Sequence[str],
        budget: Budget,
        seed: int,
        seconds: float,
        shared: bool,
        has_criterion: bool,
    ) -> AttackResult:
        """The pictures and their records."""
        x_adv = (x + self.delta[self.owners]).clamp(0, 1)
        return AttackResult(
            ids=tuple(ids), clean=x, x_adv=x_adv, loss=self.loss, success=self.success if has_criterion else None,
            non_finite=self.non_finite, distance=budget.size(x, x_adv).cpu(), forwards=self.forwards,
            backwards=self.backwards, zero_gradient_steps=self.zero_gradient, seconds=seconds, seed=seed,
            perturbation=self.delta if shared else None, budget=budget,
        )  # fmt: skip
