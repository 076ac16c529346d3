"""The workbench of the contract suite: six pictures, one small network with everything that can go wrong in it, and cases.

An example of a registered attack is ready to be called; an example of a registered objective has six rows and fits
pictures of 1 x 8 x 8. That is all a new part has to offer to be tested here.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embattle.attacks import ATTACKS, OBJECTIVES, UPDATES, Attack, AttackResult, pgd
from embattle.attacks.objectives import Match
from embattle.budget import Linf
from embattle.embedders import Embedder

ROWS, SIDE = 6, 8
IDS = tuple(f"picture/{i}" for i in range(ROWS))


class Net(nn.Module):
    """Convolution, batch norm and dropout; left in a mixed mode, as fine-tuned networks with frozen batch norm are."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.drop = nn.Dropout(0.3)
            self.last = nn.Linear(64, 8)
            self.norm.running_mean.uniform_(-0.2, 0.2)
            self.norm.running_var.uniform_(0.5, 2.0)
        self.train()
        self.norm.eval()
        self.last.bias.requires_grad_(False)
        self.conv.weight.grad = torch.full_like(self.conv.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.norm(self.conv(x)))).flatten(1))


class Spied(nn.Module):
    """Wraps a network; keeps what it was given, and can be told to misbehave at its k-th call after `arm`."""

    def __init__(self, inner: nn.Module, *, fail_at: int | None = None, blind_at: Sequence[int] = ()) -> None:
        super().__init__()
        self.inner = inner
        self.fail_at, self.blind_at = fail_at, tuple(blind_at)
        self._armed = False
        self.inputs: list[Tensor] = []

    def arm(self) -> None:
        self._armed, self.inputs = True, []

    @property
    def rows(self) -> int:
        return sum(len(x) for x in self.inputs)

    def forward(self, x: Tensor) -> Tensor:
        if not self._armed:
            return self.inner(x)
        call = len(self.inputs)
        self.inputs.append(x.detach().clone())
        if call == self.fail_at:
            raise RuntimeError("the network broke down")
        z = self.inner(x)
        # Same values, gradient exactly zero.
        return z.detach() + (x * 0).flatten(1).sum(1, keepdim=True) if call in self.blind_at else z


class Rearranged:
    """A bound objective with its rows in another order (or fewer of them); uses nothing but the protocol."""

    def __init__(self, inner: Any, index: Tensor) -> None:
        self.inner, self.index, self.count = inner, index, len(index)
        self.taps, self.stationary_at_clean, self.fingerprint = inner.taps, inner.stationary_at_clean, inner.fingerprint

    def prepare(self, index: Tensor) -> Any:
        return self.inner.prepare(self.index[index])

    def loss(self, out: Any, rows: Any, member: Embedder) -> Tensor:
        return self.inner.loss(out, rows, member)

    def success(self, out: Any, rows: Any) -> Tensor | None:
        return self.inner.success(out, rows)


@dataclass(frozen=True)
class Case:
    """An attack and an objective that must keep the contract together."""

    name: str
    attack: Any
    objective: Any

    def __str__(self) -> str:
        return self.name

    @property
    def is_loop(self) -> bool:
        """Whether it is a combination of the one loop's parts, so that parts can be exchanged."""
        return isinstance(self.attack, Attack)

    def having(self, **parts: Any) -> Case:
        return replace(self, attack=replace(self.attack, **parts))


def _attack(entry: Any, objective: Any) -> Case:
    return Case(f"{entry.name}/{objective.name}", entry.example(), objective.example())


def _update(entry: Any, objective: Any) -> Case:
    attack = Attack(budget=Linf(0.1), update=entry.example(), steps=5, name=entry.name)
    return Case(f"update:{entry.name}/{objective.name}", attack, objective.example())


def every_pair() -> list[Case]:
    """Every attack with every objective, and every update rule with one."""
    pairs = [_attack(attack, objective) for attack in ATTACKS for objective in OBJECTIVES]
    return pairs + [_update(update, OBJECTIVES["match"]) for update in UPDATES]


def every_part() -> list[Case]:
    """Every attack, every objective and every update rule at least once."""
    cases = [_attack(entry, OBJECTIVES["match"]) for entry in ATTACKS]
    cases += [_attack(ATTACKS["pgd"], entry) for entry in OBJECTIVES if entry.name != "match"]
    return cases + [_update(entry, OBJECTIVES["match"]) for entry in UPDATES]


def loops() -> list[Case]:
    """Every attack and every update rule that is a combination of the loop's parts, with one objective."""
    return [case for case in every_part() if case.is_loop and isinstance(case.objective, Match)]


def unreached() -> list[Case]:
    """`loops` towards targets that none of the pictures is near: there is something to gain at every step."""
    target = Match(target=1 - pictures().roll(1, 0), threshold=1.1)
    return [replace(case, objective=target) for case in loops()]


def restless(objective: str = "match") -> Case:
    """PGD with everything random in it that the loop itself has."""
    attack = pgd(budget=Linf(0.1), steps=4, start="random", restarts=2)
    return Case(f"pgd-random-restarts/{objective}", attack, OBJECTIVES[objective].example())


def staggered() -> list[Case]:
    """`unreached`, with thresholds that each picture passes at another step: some at once, one never."""
    target, x = 1 - pictures().roll(1, 0), pictures()
    member = embedder()
    with torch.no_grad():
        clean = member.similarity.pair(member(x), member(target))
    best = run(Case("", pgd(budget=Linf(0.1), steps=12), Match(target=target)), member).loss
    share = torch.tensor([0.1, 0.9, 0.3, 1.5, 0.6, 0.0])
    objective = Match(target=target, threshold=clean + share * (best - clean))
    return [replace(case, objective=objective).having(steps=max(case.attack.steps, 4)) for case in loops()]


def without_criterion(case: Case) -> Case:
    """The case without success, so that the best iterate is the one of the highest loss."""
    objective = case.objective
    parts = {name: getattr(objective, name) for name in type(objective).__dataclass_fields__}
    parts |= {name: None for name in ("k", "threshold") if name in parts}
    return Case(case.name, case.attack, type(objective)(**parts))


def pictures() -> Tensor:
    """Six 8-bit pictures as floats; the first three have black, white and both areas."""
    x = torch.randint(0, 256, (ROWS, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(3))
    x[0, :, :4], x[1, :, 4:], x[2, :, :, :3], x[2, :, :, 5:] = 0, 255, 0, 255
    return x.float() / 255


def embedder(module: nn.Module | None = None, **settings: Any) -> Embedder:
    return Embedder(Net() if module is None else module, **{"channels": 1, "mean": (0.3,), "std": (0.5,), **settings})


def bound(case: Case, member: Embedder, index: Sequence[int] | Tensor | None = None) -> list[Any]:
    whole = case.objective.bind(member)
    return [whole if index is None else Rearranged(whole, torch.as_tensor(index))]


def apart(case: Case, rows: Sequence[int]) -> dict[str, Any]:
    """Groups of one picture for an attack that lets all share a perturbation.

    What is promised of single pictures, that company and order do not matter, can only hold of single pictures.
    """
    return {"groups": list(rows)} if getattr(case.attack, "shared", False) else {}


def run(
    case: Case, member: Embedder, x: Tensor | None = None, *, rows: Sequence[int] | None = None, **knobs: Any
) -> AttackResult:
    """Calls the attack on the given rows, with those knobs that it has."""
    x = pictures() if x is None else x
    rows = list(range(len(x))) if rows is None else list(rows)
    knobs = {**apart(case, rows), **knobs}
    known = inspect.signature(case.attack.__call__).parameters
    knobs = {key: value for key, value in {"tile": 4, **knobs}.items() if key in known}
    bounds = bound(case, member, rows)
    for module in (m for m in member.module.modules() if isinstance(m, Spied)):
        module.arm()
    return case.attack(member, x[rows], bounds, ids=[IDS[row] for row in rows], **knobs)


def same(a: AttackResult, b: AttackResult, rows: Sequence[int] | None = None) -> None:
    """Fails unless b is a, bit for bit; `rows` are a's rows in b's order."""
    index = torch.arange(len(a)) if rows is None else torch.as_tensor(list(rows))
    assert b.ids == tuple(a.ids[i] for i in index.tolist())
    for name in ("x_adv", "loss", "non_finite", "distance", "forwards", "backwards", "zero_gradient_steps"):
        first, second = getattr(a, name)[index], getattr(b, name)
        assert torch.equal(first, second), f"{name} differs by up to {(first.double() - second.double()).abs().max()}"
    assert (a.success is None) == (b.success is None)
    assert a.success is None or torch.equal(a.success[index], b.success)
    assert tuple(a.status[i] for i in index.tolist()) == b.status


def plain_loss(case: Case, member: Embedder, x: Tensor) -> Tensor:
    """The attacker's loss of pictures, computed without the loop."""
    (whole,) = bound(case, member)
    with member.frozen(), torch.no_grad():
        return whole.loss(member.outputs(x, whole.taps), whole.prepare(torch.arange(len(x))), member)


def plain_success(case: Case, member: Embedder, x: Tensor) -> Tensor | None:
    (whole,) = bound(case, member)
    with member.frozen(), torch.no_grad():
        return whole.success(member.outputs(x, whole.taps), whole.prepare(torch.arange(len(x))))


def _state(module: nn.Module) -> dict[str, Any]:
    return {
        "modes": [m.training for m in module.modules()],
        "wanted": [p.requires_grad for p in module.parameters()],
        "values": [t.detach().clone() for t in (*module.parameters(), *module.buffers())],
        "grads": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "hooks": [
            [len(getattr(m, f"_{kind}_hooks")) for kind in ("forward", "forward_pre", "backward", "backward_pre")]
            for m in module.modules()
        ],
        "torch": torch.get_rng_state(), "numpy": np.random.get_state()[1:3], "python": random.getstate(),
        "grad_mode": torch.is_grad_enabled(),
    }  # fmt: skip


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Fails if anything of the model, or any global random state, is not as it was, also after an exception."""
    before = _state(module)
    try:
        yield
    finally:
        after = _state(module)
        for key, was in before.items():
            assert _equal(was, after[key]), f"{key} changed: {was} -> {after[key]}"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor | np.ndarray):
        return bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
