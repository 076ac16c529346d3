"""What an attack gives back: pictures, what they achieve, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from embattle.budget import TOLERANCE, Budget
from embattle.embedders import Embedder
from embattle.records import wilson

if TYPE_CHECKING:
    from embattle.attacks.objective import Bound, Objective


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """Adversarial pictures with one entry per sample; first axis N.

    Args:
        ids: stable ids.
        clean, x_adv: (N, C, H, W) float in [0, 1]; |x_adv − clean| ≤ ε + 1e-6 in the budget's norm.
        loss: (N,) the attacker's loss of `x_adv`, higher = better for the attacker; -inf where it never was finite.
        success: (N,) booleans, or None where the objective had no criterion.
        non_finite: (N,) whether loss or gradient was NaN or infinite at any step.
        distance: (N,) measured size of the perturbation in the budget's norm.
        forwards, backwards: (N,) passes spent on each sample.
        zero_gradient_steps: (N,) steps at which the gradient was zero everywhere.
        seconds: wall time of the whole call, preparation included.
        seed: of all random draws.
        perturbation: (P, C, H, W) the shared perturbations when `groups` were given.
        budget: the budget it was made under.
    """

    ids: Sequence[str]
    clean: Tensor
    x_adv: Tensor
    loss: Tensor
    success: Tensor | None
    non_finite: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradient_steps: Tensor
    seconds: float
    seed: int
    perturbation: Tensor | None
    budget: Budget
    is_eight_bit: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def status(self) -> tuple[str, ...]:
        """Per sample, the first that applies: non_finite, success, zero_gradient, failed; "scored" without a criterion."""
        return tuple(self._status(i) for i in range(len(self)))

    def _status(self, i: int) -> str:
        if self.non_finite[i]:
            return "non_finite"
        if self.success is not None and self.success[i]:
            return "success"
        if 0 < self.backwards[i] == self.zero_gradient_steps[i]:
            return "zero_gradient"
        return "scored" if self.success is None else "failed"

    @property
    def eight_bit_images(self) -> Tensor:
        """(N, C, H, W) uint8 pictures, rounded towards the clean ones, inside the budget."""
        return self.budget.eight_bit(self.clean, self.x_adv)

    def eight_bit(
        self, embedder: Embedder, objective: Objective | Bound | Sequence[Bound], *, tile: int = 32
    ) -> AttackResult:
        """The same result re-measured on the pictures a PNG file holds: loss, success and distance anew.

        Args:
            embedder: the model to measure on.
            objective: rows aligned with this result; or already bound to the embedder.
            tile: physical batch size.
        """
        from embattle.attacks import admission
        from embattle.attacks.tile import Judge

        x_adv = self.eight_bit_images.to(self.x_adv.dtype) / 255
        bounds = admission.bind(objective, embedder, len(self))
        judge = Judge(surrogate=embedder, bounds=bounds, transforms=(), tile=tile)
        seen = judge.score(x_adv, tuple(self.ids), self.seed)
        distance = self.budget.size(self.clean, x_adv)
        # Where the clean picture is not on the 8-bit lattice, the ball may hold no 8-bit picture at all.
        success = None if seen.success is None else seen.success & (distance <= self.budget.eps + TOLERANCE)
        return replace(
            self, x_adv=x_adv, loss=seen.loss.cpu(), success=None if success is None else success.cpu(),
            non_finite=self.non_finite | ~seen.finite.cpu(), distance=distance.cpu(),
            is_eight_bit=True,
        )  # fmt: skip

    def records(self) -> Iterator[dict[str, Any]]:
        """One plain dictionary per sample, ready for a JSON line."""
        for i, name in enumerate(self.ids):
            loss = float(self.loss[i])
            yield {
                "sample": name,
                "status": self.status[i],
                "success": None if self.success is None else bool(self.success[i]),
                "loss": loss if abs(loss) < float("inf") else None,
                "distance": float(self.distance[i]),
                "forwards": int(self.forwards[i]),
                "backwards": int(self.backwards[i]),
                "zero_gradient_steps": int(self.zero_gradient_steps[i]),
            }

    def __str__(self) -> str:
        parts = [f"{len(self)} samples"]
        if self.success is not None:
            won = sum(status == "success" for status in self.status)
            low, high = wilson(won, len(self))
            parts.append(f"{won} success [{low:.2f}, {high:.2f}]")
        rounded = " after 8-bit rounding" if self.is_eight_bit else ""
        parts.append(f"{self.budget}{rounded}")
        parts.append(f"{float(self.forwards.float().mean()):g} forwards each")
        bad = int(self.non_finite.sum())
        if bad:
            parts.append(f"{bad} with NaN or infinite values")
        return ", ".join(parts)
