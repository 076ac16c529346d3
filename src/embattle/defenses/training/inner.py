"""The attack inside a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from embattle.attacks import pgd
from embattle.attacks.objective import Objective
from embattle.attacks.precision import Precision
from embattle.budget import Linf
from embattle.embedders import Embedder
from embattle.training import Batch

# Pictures of a physical batch: large enough for the kernels, small enough for the cache of a processor core.
TILE = 128
# Raised whenever the attack comes to other pictures from the same settings, so that no model passes for one that was
# trained against it; a test keeps what it comes to.
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class InnerAttack:
    """Projected sign steps on the model in training, whose last iterate is trained on.

    Args:
        eps: how far a pixel may move, in units of [0, 1].
        steps: sign steps, each a forward and a backward pass.
        step_size: α of a step, in pixel units.
        precision: of the gradient steps, "float32" or "bfloat16"; the weights' own step is float32 either way.

    Raises:
        BudgetError: an ε outside (0, 1], fewer than one step, a step that is not positive.
    """

    eps: float
    steps: int
    step_size: float
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self._attack()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values for a run's identity."""
        found = {"eps": self.eps, "steps": self.steps, "step_size": self.step_size, "precision": self.precision}
        return found if _VERSION == 1 else {**found, "attack": _VERSION}

    def __call__(self, embedder: Embedder, x: Tensor, objective: Objective, batch: Batch, ids: Sequence[str]) -> Tensor:
        """The attacked pictures, (n, C, H, W); draws are keyed by the batch's place in the run and by `ids`."""
        seed = int(batch.rng("attack").integers(2**62))
        found: Tensor = self._attack()(embedder, x, objective, seed=seed, ids=ids, tile=min(TILE, len(x))).x_adv
        return found

    def _attack(self) -> Any:
        return pgd(
            budget=Linf(self.eps), steps=self.steps, step_size=self.step_size, keep="last", scored=False,
            precision=self.precision,
        )  # fmt: skip
