"""The attack loop. There is one; every gradient attack is a combination of its parts.

A *perturbation* is what is optimised; usually each picture has its own, and under `groups` several pictures share one
(a universal perturbation). Perturbations enter the flight, make their steps, and leave when they are done; others take
their place. One iteration evaluates every picture in flight once: that pass scores the iterate it stands on and gives the
gradient for the next, so `steps` steps cost `steps + 1` forwards and the last iterate is always scored.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from embattle.attacks import admission
from embattle.attacks.flight import Flight, Job, PixelSpace
from embattle.attacks.objective import Bound, Objective
from embattle.attacks.precision import Precision, check_precision, stepping
from embattle.attacks.result import AttackResult
from embattle.attacks.surrogate import Surrogate
from embattle.attacks.tally import Tally
from embattle.attacks.tile import Evaluation, Judge
from embattle.attacks.transform import Transform
from embattle.attacks.updates import Point, Update
from embattle.budget import TOLERANCE, Budget
from embattle.errors import BudgetError, ConfigError

Start = Literal["clean", "random", "nudge"]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A combination of parts, ready to be called on any embedder and objective.

    Args:
        budget: how far a picture may move.
        update: how a perturbation moves.
        steps: gradient steps of each restart; costs steps + 1 forwards.
        transforms: differentiable picture changes inside the loop.
        restarts: how many starts; the first as `start` says, the others random. The best result is kept.
        keep: "best" iterate (success first, then loss) or "last".
        leave_on_success: stop working on a picture once its 8-bit form succeeds.
        start: "clean", "random" in the budget, or "nudge" (a seeded ±ε/1000), which replaces "clean" where the objective
            has no gradient at the clean picture.
        precision: of the gradient steps, "float32" or "bfloat16"; the returned picture is scored in float32 either way,
            which costs one more forward after bfloat16 steps.
        shared: whether all pictures carry one perturbation where a call gives no groups.
        averaged: whether a shared perturbation becomes, after every step, the mean of its copies clipped to each picture's
            range, as in the ranking paper. False leaves it the whole ball, and pictures are clipped where it is put on
            them: stronger, because pixels that are black or white in some pictures hold it back no longer.
        scored: whether the last iterate is scored. False saves that forward for callers who want the pictures alone, as
            training does; every loss is then -inf, and nothing is a success. Goes with keep="last" and one restart.
        name: what reports call it.

    Raises:
        BudgetError: fewer than 1 step or restart.
        ConfigError: an unknown `keep`, `start` or `precision`; `scored` False with parts that choose by score.
    """

    budget: Budget
    update: Update
    steps: int
    transforms: tuple[Transform, ...] = ()
    restarts: int = 1
    keep: Literal["best", "last"] = "best"
    leave_on_success: bool = False
    start: Start = "clean"
    precision: Precision = "float32"
    # Not in the text by which runs of earlier versions know their attacks.
    shared: bool = field(default=False, repr=False)
    averaged: bool = field(default=True, repr=False)
    scored: bool = field(default=True, repr=False)
    name: str = field(default="attack", compare=False)

    def __post_init__(self) -> None:
        check_count(self.steps, "steps")
        check_count(self.restarts, "restarts")
        if self.keep not in ("best", "last"):
            raise ConfigError(f"keep must be 'best' or 'last', not {self.keep!r}")
        if self.start not in ("clean", "random", "nudge"):
            raise ConfigError(f"start must be 'clean', 'random' or 'nudge', not {self.start!r}")
        check_precision(self.precision)
        if not self.scored and (self.keep != "last" or self.restarts > 1 or self.leave_on_success):
            raise ConfigError(
                "scored=False leaves nothing to choose by; it goes with keep='last', restarts=1 and leave_on_success=False"
            )

    def __call__(
        self,
        surrogate: Surrogate,
        x: Tensor,
        objective: Objective | Bound | Sequence[Bound],
        *,
        seed: int = 0,
        ids: Sequence[str] | None = None,
        groups: Sequence[int] | None = None,
        tile: int = 32,
        tiles_in_flight: int = 1,
    ) -> AttackResult:
        """Attacks the pictures.

        Args:
            surrogate: an Embedder, or anything with its members, weights and context.
            x: (N, C, H, W) float pictures in [0, 1].
            objective: what the attacker wants, rows aligned with `x`; or already bound, one per member.
            seed: of every random draw; equal seeds give equal results whatever the batching.
            ids: stable data-set ids that random draws are keyed by; without them each picture's content is its id.
            groups: one whole number per picture; pictures with equal numbers share one perturbation. None: each has its
                own, or all share one where the attack is `shared`.
            tile: physical batch size; part of the result to the last bit.
            tiles_in_flight: how many tiles are worked on at a time; changes memory and nothing else.

        Raises:
            PixelError: pictures outside [0, 1] or of the wrong shape.
            ConfigError: ids, groups or targets that do not fit the pictures.
            ModelError: a model without gradients, or one that does not run in the given precision.
        """
        # Gradients are needed also where the caller has switched them off for good.
        with torch.inference_mode(False):
            started = time.perf_counter()
            x = admission.pixels(x, surrogate)
            names = admission.ids(ids, x)
            groups = [0] * len(x) if groups is None and self.shared else groups
            owners = admission.owners(groups, len(x))
            bounds = admission.bind(objective, surrogate, len(x))
            stationary = admission.is_stationary(objective)
            if tile < 1 or tiles_in_flight < 1:
                raise ConfigError(f"tile and tiles_in_flight must be at least 1, not {tile} and {tiles_in_flight}")
            walker = stepping(surrogate, self.precision, x[:1])
            judge = Judge(surrogate=walker, bounds=bounds, transforms=self.transforms, tile=tile)
            run = _Run(
                attack=replace(self, start="nudge") if stationary and self.start == "clean" else self,
                judge=judge, referee=judge if walker is surrogate else replace(judge, surrogate=surrogate),
                x=x, seed=seed, ids=names, owners=owners, tally=Tally.empty(x, owners), room=tile * tiles_in_flight,
            )  # fmt: skip
            with ExitStack() as frozen:
                # Once around all steps: putting every layer into eval mode takes longer than some layers compute.
                for member in (*surrogate.members, *walker.members):
                    frozen.enter_context(member.frozen())
                run.go()
            return run.tally.result(
                x, ids=names, budget=self.budget, seed=seed, seconds=time.perf_counter() - started,
                shared=groups is not None, has_criterion=run.has_criterion,
            )  # fmt: skip


def check_count(value: object, what: str) -> None:
    """BudgetError unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BudgetError(f"{what} must be a whole number of at least 1, not {value!r}")


@dataclass
class _Run:
    """One call of an attack: the queue, the flight, and what is known so far."""

    attack: Attack
    judge: Judge
    referee: Judge
    x: Tensor
    seed: int
    ids: tuple[str, ...]
    owners: Tensor
    tally: Tally
    room: int
    has_criterion: bool = False

    def go(self) -> None:
        queue = deque(Job(perturbation=p, restart=0, rows=rows) for p, rows in enumerate(self._members()))
        flight: Flight | None = None
        while queue or flight is not None:
            flight = self._refill(flight, queue)
            flight = self._iterate(flight, queue)

    def _members(self) -> list[Tensor]:
        """The pictures of each perturbation; by id within a group, so that sums do not depend on the given order."""
        members: list[list[int]] = [[] for _ in range(int(self.owners.max()) + 1)]
        for row, perturbation in enumerate(self.owners.tolist()):
            members[perturbation].append(row)
        return [torch.tensor(sorted(rows, key=lambda row: self.ids[row])) for rows in members]

    def _refill(self, flight: Flight | None, queue: deque[Job]) -> Flight:
        taken = len(flight.rows) if flight is not None else 0
        entering: list[Job] = []
        # A group enters and leaves together; one larger than the room flies alone, in several tiles.
        while queue and (taken == 0 or taken + len(queue[0].rows) <= self.room):
            entering.append(queue.popleft())
            taken += len(entering[-1].rows)
        if not entering:
            assert flight is not None
            return flight
        fresh = Flight.enter(
            entering, self.x, self.ids, self.seed, attack_start=self.attack.start, budget=self.attack.budget,
            init=self.attack.update.init, constants=self.judge.constants, averaged=self.attack.averaged,
        )  # fmt: skip
        return fresh if flight is None else flight.joined(fresh)

    def _iterate(self, flight: Flight, queue: deque[Job]) -> Flight | None:
        """One pass over everything in flight: score, record, let go what is done, move the rest."""
        at_end = flight.step >= self.attack.steps
        if not self.attack.scored and bool(at_end.all()):
            self.tally.take(flight)
            return None
        seen = self._evaluate(flight, gradient=not bool(at_end.all()))
        scored = self._score_on_plain_model(flight, seen)
        self.has_criterion |= scored.success is not None
        moving = ~flight.per_row(at_end)
        self.tally.count(flight.rows, forwards=1, backwards=moving)
        if not (seen.sound and scored.sound):
            unsteady = ~seen.steady.cpu() & moving
            self.tally.note_non_finite(flight.rows, ~(seen.finite & scored.finite).cpu() | unsteady)
        self.tally.score(flight, scored, keep=self.attack.keep, at_end=at_end)
        done = at_end | self._left_by_success(flight, scored)
        self._score_exactly(flight, done)
        self._requeue(flight, done, queue)
        if bool(done.all()):
            return None
        assert seen.grad is not None
        if not bool(done.any()):
            return self._move(flight, seen.loss, seen.grad)
        remaining, rows = flight.only(torch.nonzero(~done).flatten())
        return self._move(remaining, seen.loss[rows], seen.grad[rows])

    def _evaluate(self, flight: Flight, *, gradient: bool, live: bool = True) -> Evaluation:
        rows = flight.keys(self.seed, self.ids, live=live)
        return self.judge.evaluate(flight.pictures(), flight.constants, rows, gradient=gradient)

    def _score_on_plain_model(self, flight: Flight, seen: Evaluation) -> Evaluation:
        # Under random transforms or dropout the step's own loss is noise: the best of many noisy numbers is a lucky one.
        if not self.judge.noisy or self.attack.keep == "last":
            return seen
        self.tally.count(flight.rows, forwards=1)
        return self._evaluate(flight, gradient=False, live=False)

    def _left_by_success(self, flight: Flight, scored: Evaluation) -> Tensor:
        nobody = torch.zeros(len(flight.step), dtype=torch.bool)
        if not self.attack.leave_on_success or scored.success is None:
            return nobody
        claimed = flight.all_rows(scored.success)
        if not bool(claimed.any()):
            return nobody
        # Only a picture that survives being saved has succeeded.
        asked, rows = flight.only(torch.nonzero(claimed).flatten())
        clean = asked.clean
        saved = self.attack.budget.eight_bit(clean, asked.pictures()).to(clean.dtype) / 255
        keys = asked.keys(self.seed, self.ids, live=False)
        again = self.referee.evaluate(saved, asked.constants, keys, gradient=False)
        self.tally.count(asked.rows, forwards=1)
        assert again.success is not None
        within = self.attack.budget.size(clean, saved) <= self.attack.budget.eps + TOLERANCE
        confirmed = asked.all_rows(again.success & within)
        self.tally.settle(asked, confirmed, scored, rows)
        nobody[torch.nonzero(claimed).flatten()[confirmed]] = True
        return nobody

    def _score_exactly(self, flight: Flight, done: Tensor) -> None:
        """What is reported of perturbations that leave comes from the model itself, not from a twin of less precision."""
        if self.referee is self.judge or not bool(done.any()):
            return
        leaving, _ = flight.only(torch.nonzero(done).flatten())
        kept = replace(leaving, delta=self.tally.delta[leaving.places])
        keys = kept.keys(self.seed, self.ids, live=False)
        seen = self.referee.evaluate(kept.pictures(), kept.constants, keys, gradient=False)
        self.tally.count(kept.rows, forwards=1)
        self.tally.note_non_finite(kept.rows, ~seen.finite)
        self.tally.report(kept.rows, seen)

    def _requeue(self, flight: Flight, done: Tensor, queue: deque[Job]) -> None:
        if self.attack.restarts == 1:
            return
        for slot in torch.nonzero(done).flatten().tolist():
            job = flight.jobs[slot]
            finished = self.attack.leave_on_success and self.tally.is_settled(job.perturbation)
            if job.restart + 1 < self.attack.restarts and not finished:
                queue.append(replace(job, restart=job.restart + 1))

    def _move(self, flight: Flight, loss: Tensor, grad: Tensor) -> Flight:
        slot_grad, slot_loss = flight.mean_over_rows(grad), flight.mean_loss(loss)
        still = slot_grad.flatten(1).abs().amax(1) == 0
        if bool(still.any()):
            self.tally.count_zero_gradient(flight.rows, flight.per_row(still))
        space = PixelSpace(budget=self.attack.budget, flight=flight, averaged=self.attack.averaged)
        point = Point(
            delta=flight.delta, grad=slot_grad, loss=slot_loss, step=flight.step.to(grad.device), steps=self.attack.steps
        )
        state, delta = self.attack.update.step(flight.state, point, space)
        return flight.moved(delta, state)
