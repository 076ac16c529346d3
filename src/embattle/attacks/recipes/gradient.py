"""White-box attacks that are the loop with different parts."""

from __future__ import annotations

import math
from typing import Any

from embattle.attacks.loop import Attack, check_count
from embattle.attacks.recipes import ATTACKS, recipe
from embattle.attacks.updates.adaptive import FIRST_STEP, Adaptive
from embattle.attacks.updates.momentum import Momentum
from embattle.attacks.updates.steepest import Steepest
from embattle.budget import Budget, Linf
from embattle.errors import BudgetError


def _example(name: str, **parts: Any) -> Attack:
    attack: Attack = ATTACKS[name].build(budget=Linf(0.1), **parts)
    return attack


def ranking_steps(eps: float) -> tuple[float, int]:
    """Step size and number of steps of the ranking paper for a given ε (Zhou et al. 2020, section 4.1).

    >>> [ranking_steps(eps)[1] for eps in (0.01, 0.03, 0.1, 0.3)]
    [10, 15, 20, 30]
    """
    size = min(max(eps / 10, 1 / 255), 0.01)
    return size, int(min(max(10.0, 2 * eps / size), 30.0))


@ATTACKS.register("fgsm", example=lambda: _example("fgsm"), paper="Goodfellow et al. 2015, section 4", access="gradient")
@recipe
def fgsm(*, budget: Budget, **parts: Any) -> Attack:
    """One step of size ε along the steepest direction.

    Args:
        budget: Linf or L2.
        parts: further fields of `Attack` (`transforms`, `keep`, ...).
    """
    return Attack(budget=budget, update=Steepest(step_size=_positive(budget.eps)), steps=1, **{"name": "fgsm", **parts})


@ATTACKS.register(
    "pgd",
    example=lambda: _example("pgd", steps=5),
    paper="Madry et al. 2018, section 2.1; step rule 'ranking': Zhou et al. 2020, section 4.1",
    access="gradient",
    differs="starts at the clean picture unless start='random'; keeps the best iterate unless keep='last'",
)
@recipe
def pgd(
    *, budget: Budget, steps: int | None = None, step_size: float | None = None, rule: str = "", **parts: Any
) -> Attack:
    """Projected gradient ascent with fixed steps.

    Args:
        budget: Linf or L2.
        steps: number of gradient steps, 20 by default.
        step_size: α in pixel units; by default 2.5 ε / steps, so that the boundary can be reached and walked along.
        rule: "ranking" takes both from the ranking paper's formula for ε.
        parts: further fields of `Attack` (`restarts`, `start`, `leave_on_success`, ...).

    Raises:
        BudgetError: an unknown rule, or a rule together with steps or step_size.
    """
    if rule == "ranking":
        if steps is not None or step_size is not None:
            raise BudgetError("rule='ranking' sets steps and step_size itself; leave both out")
        step_size, steps = ranking_steps(budget.eps)
    elif rule:
        raise BudgetError(f"the step rule {rule!r} is not known; write rule='ranking' or give steps and step_size")
    steps = 20 if steps is None else steps
    check_count(steps, "steps")
    size = _positive(2.5 * budget.eps / steps) if step_size is None else step_size
    return Attack(budget=budget, update=Steepest(step_size=size), steps=steps, **{"name": "pgd", **parts})


@ATTACKS.register(
    "mi-fgsm", example=lambda: _example("mi-fgsm", steps=5), paper="Dong et al. 2018, Algorithm 1", access="gradient",
    differs="keeps the best iterate unless keep='last'",
)  # fmt: skip
@recipe
def mi_fgsm(*, budget: Budget, steps: int = 10, step_size: float | None = None, decay: float = 1.0, **parts: Any) -> Attack:
    """Momentum iterative FGSM: steps along the accumulated, L1-normalised gradient.

    Args:
        budget: Linf or L2.
        steps: number of gradient steps.
        step_size: α; ε / steps by default, as in the paper.
        decay: μ.
        parts: further fields of `Attack`.
    """
    check_count(steps, "steps")
    size = _positive(budget.eps / steps) if step_size is None else step_size
    return Attack(budget=budget, update=Momentum(step_size=size, decay=decay), steps=steps, **{"name": "mi-fgsm", **parts})


@ATTACKS.register(
    "apgd",
    example=lambda: _example("apgd", steps=8),
    paper="Croce and Hein 2020, Reliable Evaluation of Adversarial Robustness, Algorithm 1",
    access="gradient",
    differs="first step ε/2, not 2ε; starts at the clean picture unless start='random'; any objective",
)
@recipe
def apgd(*, budget: Budget, steps: int = 30, first: float = FIRST_STEP, **parts: Any) -> Attack:
    """Auto-PGD: no step size to choose; it halves where progress stalls. The audit's default.

    Args:
        budget: Linf or L2.
        steps: number of gradient steps.
        first: size of the first step as a multiple of ε; the published one is 2.
        parts: further fields of `Attack`.
    """
    return Attack(budget=budget, update=Adaptive(first=first), steps=steps, **{"name": "apgd", **parts})


def _positive(size: float) -> float:
    # With ε = 0 the clean picture is the only one in the budget; any step size gives it.
    return size if size > 0 else math.ulp(1.0)
