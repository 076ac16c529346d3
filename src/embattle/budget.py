"""Perturbation budgets: how far an adversarial picture may be from the clean one, and what that means for a gradient step.

ε is in pixel units of [0, 1]. The budget is enforced inside the loop by `project` and measured again outside it by `size`;
`eight_bit` gives the picture that a PNG file can hold, still inside the ball.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from embattle import rng
from embattle.errors import BudgetError
from embattle.rng import Rows

TOLERANCE = 1e-6
# Start "nudge": far below one grey level, enough to leave a stationary point in a seeded direction.
_NUDGE = 1e-3


@runtime_checkable
class Budget(Protocol):
    """A ball around the clean picture."""

    @property
    def eps(self) -> float:
        """ε in pixel units of [0, 1]."""
        ...

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation inside the ball, (n, C, H, W)."""
        ...

    def steepest(self, grad: Tensor) -> Tensor:
        """The direction of unit size along which the loss rises fastest; zero for a zero gradient."""
        ...

    def start(self, rows: Rows, like: Tensor) -> Tensor:
        """A random perturbation inside the ball, keyed by the rows."""
        ...

    def nudge(self, rows: Rows, like: Tensor) -> Tensor:
        """A random perturbation of size ε/1000, to leave a point where the gradient is zero."""
        ...

    def eight_bit(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """The 8-bit picture: uint8, rounded towards `x`, inside the ball."""
        ...

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """How far `x_adv` is from `x` in this norm, (n,)."""
        ...


@dataclass(frozen=True)
class Linf:
    """No pixel moves by more than ε.

    Args:
        eps: ε in pixel units, 0 <= ε <= 1.

    Raises:
        BudgetError: ε negative, above 1, or not finite.

    >>> Linf(0.25).project(torch.tensor([[[[0.5, -0.125]]]])).flatten().tolist()
    [0.25, -0.125]
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps, "Linf")
        if self.eps > 1:
            raise BudgetError(
                f"Linf ε = {self.eps:g} is more than the whole pixel range [0, 1]; if you mean grey levels, "
                f"write {self.eps:g}/255 = {self.eps / 255:.4f}"
            )

    def project(self, delta: Tensor) -> Tensor:
        """Clips every entry to [-ε, ε]."""
        return delta.clamp(-self.eps, self.eps)

    def steepest(self, grad: Tensor) -> Tensor:
        """The sign of the gradient."""
        return grad.sign()

    def start(self, rows: Rows, like: Tensor) -> Tensor:
        """Uniform in the cube [-ε, ε]."""
        return _on(like, rows.draw("start", like.shape[1:], rng.uniform(-self.eps, self.eps)))

    def nudge(self, rows: Rows, like: Tensor) -> Tensor:
        """±ε/1000 at every pixel."""
        return _on(like, rows.draw("nudge", like.shape[1:], rng.signs)) * (self.eps * _NUDGE)

    def eight_bit(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Rounds towards x; the decoded picture is within floor(255 ε)/255 of an 8-bit x."""
        # A float x may sit between two grey levels: then the ball is measured from x itself, in exact grey levels.
        low = torch.ceil(((x - self.eps) * 255).double() - 255 * TOLERANCE)
        high = torch.floor(((x + self.eps) * 255).double() + 255 * TOLERANCE)
        return _clip_levels(_towards(x, x_adv), low, high)

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Largest change of a pixel, (n,)."""
        return (x_adv - x).abs().flatten(1).amax(1)

    def __str__(self) -> str:
        return f"Linf {_as_levels(self.eps)}"


@dataclass(frozen=True)
class L2:
    """The Euclidean length of the change, over all pixels of a picture, is at most ε.

    Args:
        eps: ε in pixel units, ε >= 0.

    Raises:
        BudgetError: ε negative or not finite.
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps, "L2")

    def project(self, delta: Tensor) -> Tensor:
        """Scales a perturbation that is too long back to length ε; shorter ones stay as they are."""
        length = _length(delta)
        return delta * (self.eps / length.clamp_min(1e-12)).clamp(max=1.0)

    def steepest(self, grad: Tensor) -> Tensor:
        """The gradient divided by its length; zero stays zero."""
        # Tiny gradients are scaled up first: squaring 1e-30 in float32 would give a length of zero.
        scale = grad.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
        scaled = grad / torch.where(scale > 0, scale, torch.ones_like(scale))
        length = _length(scaled)
        return torch.where(length > 0, scaled / length.clamp_min(1e-12), torch.zeros_like(scaled))

    def start(self, rows: Rows, like: Tensor) -> Tensor:
        """Uniform in the ball of radius ε."""
        direction = self.steepest(_on(like, rows.draw("start", like.shape[1:], rng.normal)))
        radius = _on(like, rows.draw("start-radius", (1, 1, 1))) ** (1.0 / math.prod(like.shape[1:]))
        return direction * radius * self.eps

    def nudge(self, rows: Rows, like: Tensor) -> Tensor:
        """A random direction, length ε/1000."""
        return self.steepest(_on(like, rows.draw("nudge", like.shape[1:], rng.normal))) * (self.eps * _NUDGE)

    def eight_bit(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Rounds towards x: no pixel's change grows, so the length cannot (for an 8-bit x)."""
        return _clip_levels(_towards(x, x_adv), torch.zeros_like(x), torch.full_like(x, 255))

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Euclidean length of the change, (n,)."""
        length: Tensor = (x_adv - x).flatten(1).norm(dim=1)
        return length

    def __str__(self) -> str:
        return f"L2 {self.eps:g}"


def _check_eps(eps: float, norm: str) -> None:
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not math.isfinite(eps) or eps < 0:
        raise BudgetError(f"{norm} ε must be a finite number of at least 0 in pixel units of [0, 1], not {eps!r}")


def _as_levels(eps: float) -> str:
    levels = eps * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def _length(delta: Tensor) -> Tensor:
    length: Tensor = delta.flatten(1).norm(dim=1)
    return length.view(-1, 1, 1, 1)


def _on(like: Tensor, values: Tensor) -> Tensor:
    return values.to(device=like.device, dtype=like.dtype)


def _towards(x: Tensor, x_adv: Tensor) -> Tensor:
    """Grey levels of x_adv, each rounded to the side on which x lies."""
    levels, clean = (x_adv * 255).double(), (x * 255).double()
    # A level that is an integer up to float noise stays itself; otherwise floor when x is below, ceil when above.
    near = levels.round()
    exact = (levels - near).abs() < 1e-3
    return torch.where(exact, near, torch.where(levels > clean, levels.floor(), levels.ceil()))


def grey_levels(delta: Tensor) -> Tensor:
    """A perturbation in whole grey levels of 1/255, rounded towards zero, int16.

    Added to any 8-bit picture, and clipped to 0..255, it changes no pixel by more than the perturbation's largest entry:
    what is learnt on some pictures is applied to others exactly, and within the budget.

    >>> grey_levels(torch.tensor([2.9, -2.9, 3.0]) / 255).tolist()
    [2, -2, 3]
    """
    levels = delta.double() * 255
    # A level that is an integer up to float noise stays itself.
    near = levels.round()
    return torch.where((levels - near).abs() < 1e-3, near, levels.trunc()).to(torch.int16)


def _clip_levels(levels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    low, high = low.clamp(0, 255), high.clamp(0, 255)
    # Between two grey levels closer than ε to neither: the ball holds no 8-bit picture there, the nearest one is taken.
    return torch.minimum(torch.maximum(levels, torch.minimum(low, high)), torch.maximum(low, high)).to(torch.uint8)
