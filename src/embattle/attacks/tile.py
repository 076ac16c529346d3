"""One physical batch: what a surrogate says about the pictures in it.

Matrix kernels round differently for different batch shapes, and one flipped sign changes everything after it. So pictures
are always evaluated in tiles of one fixed size, the last one padded by repeating a row; their number changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embattle.attacks.objective import Bound, judged
from embattle.attacks.surrogate import Surrogate
from embattle.attacks.transform import Transform
from embattle.attacks.tree import Tree, take
from embattle.errors import ModelError
from embattle.rng import Rows


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known about n pictures: the attacker's loss, success where a criterion exists, and the gradient if asked for.

    Where the loss was not finite it is -inf and no success; where the gradient was not finite it is zero. `finite` speaks
    of the loss, `steady` of the gradient (True where none was asked for), so that what is said of a final iterate does not
    depend on whether others in the tile still needed gradients. `sound` says that all of both are.
    """

    loss: Tensor
    success: Tensor | None
    grad: Tensor | None
    finite: Tensor
    steady: Tensor
    sound: bool

    def first(self, n: int) -> Evaluation:
        """Without the padding behind the first n rows."""
        return Evaluation(
            loss=self.loss[:n], success=None if self.success is None else self.success[:n],
            grad=None if self.grad is None else self.grad[:n], finite=self.finite[:n], steady=self.steady[:n],
            sound=self.sound,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A surrogate with an objective bound to each of its members, evaluated in tiles of one size."""

    surrogate: Surrogate
    bounds: Sequence[Bound]
    transforms: tuple[Transform, ...]
    tile: int

    @property
    def noisy(self) -> bool:
        """Whether the attack's own loss is random, so that its best iterate must be judged on the plain model."""
        return bool(self.transforms) or self.surrogate.stochastic

    def constants(self, index: Tensor) -> Tree:
        """The objective's constants of the given rows, for every member."""
        return {str(i): bound.prepare(index) for i, bound in enumerate(self.bounds)}

    def evaluate(self, x: Tensor, constants: Tree, rows: Rows, *, gradient: bool) -> Evaluation:
        """Evaluates (n, C, H, W) pictures tile by tile; `rows.live` False means without transforms and model edits."""
        if len(x) == self.tile:
            return self._tile(x, constants, rows, gradient)
        parts = []
        for index in torch.arange(len(x)).split(self.tile):
            n = len(index)
            padded = torch.cat([index, index[-1:].expand(self.tile - n)])
            positions = padded.tolist()
            here = replace(rows, ids=tuple(rows.ids[i] for i in positions), step=tuple(rows.step[i] for i in positions))
            parts.append(self._tile(x[padded], take(constants, padded), here, gradient).first(n))
        return _joined(parts)

    def score(self, x: Tensor, ids: tuple[str, ...], seed: int) -> Evaluation:
        """Evaluates all of (N, C, H, W) on the plain model; constants are prepared for one tile at a time."""
        parts = []
        for index in torch.arange(len(x)).split(self.tile):
            names = tuple(ids[i] for i in index.tolist())
            rows = Rows(seed=seed, ids=names, step=(0,) * len(index), live=False)
            parts.append(self.evaluate(x[index], self.constants(index), rows, gradient=False))
        return _joined(parts)

    def _tile(self, x: Tensor, constants: Tree, rows: Rows, gradient: bool) -> Evaluation:
        # A graph is built also when no gradient is wanted: the forward pass then runs the same kernels in both cases.
        leaf = x.detach().requires_grad_(True)
        # Also when the caller has switched gradients off.
        with torch.enable_grad():
            loss, success = self._forward(leaf, constants, rows)
            total = loss.sum()
            if not total.requires_grad:
                raise ModelError(
                    f"{self.surrogate.members[0].name} gives no gradient: for autograd its embedding does not depend on "
                    f"the pixels; take no_grad, detach, numpy and whole numbers out of its forward"
                )
        grad = torch.autograd.grad(total, leaf)[0] if gradient else None
        loss = loss.detach()
        finite = torch.isfinite(loss)
        # The largest entry is NaN or infinite where any is: one pass over the gradient.
        steady = torch.ones_like(finite) if grad is None else torch.isfinite(grad.flatten(1).abs().amax(1))
        usable = finite & steady
        sound = bool(usable.all())
        if not sound:
            if grad is not None:
                grad = torch.where(usable.view(-1, 1, 1, 1), grad, torch.zeros_like(grad))
            loss = torch.where(finite, loss, torch.full_like(loss, -math.inf))
            # A NaN similarity compares as neither closer nor farther: its rank would read as 0.
            success = None if success is None else success & finite
        return Evaluation(loss=loss, success=success, grad=grad, finite=finite, steady=steady, sound=sound)

    def _forward(self, leaf: Tensor, constants: Tree, rows: Rows) -> tuple[Tensor, Tensor | None]:
        x = leaf
        if rows.live:
            for transform in self.transforms:
                x = transform(x, rows)
        total: Tensor | None = None
        everywhere: Tensor | None = None
        with self.surrogate.opened(rows):
            members = zip(self.surrogate.members, self.surrogate.weights, self.bounds, strict=True)
            for i, (member, weight, bound) in enumerate(members):
                # Pictures live where the first member does.
                out = member.outputs(x if i == 0 else x.to(member.device), bound.taps)
                own = constants[str(i)]
                loss, success = judged(bound, out, own, member)
                loss = loss.to(leaf.device)
                loss = loss if weight == 1 else weight * loss
                total = loss if total is None else total + loss
                if success is not None:
                    everywhere = success if everywhere is None else everywhere & success
        assert total is not None, "a surrogate has at least one member"
        return total, everywhere


def _joined(parts: Sequence[Evaluation]) -> Evaluation:
    success = [part.success for part in parts if part.success is not None]
    grads = [part.grad for part in parts if part.grad is not None]
    return Evaluation(
        loss=torch.cat([part.loss for part in parts]),
        success=torch.cat(success) if success else None,
        grad=torch.cat(grads) if grads else None,
        finite=torch.cat([part.finite for part in parts]),
        steady=torch.cat([part.steady for part in parts]),
        sound=all(part.sound for part in parts),
    )
