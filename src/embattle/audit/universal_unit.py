"""One unit of an audit with a universal scenario: learn one perturbation, apply it to unseen pictures, measure those."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embattle.attacks import Attack
from embattle.audit.attack_unit import build_attack
from embattle.audit.config import AuditConfig
from embattle.audit.findings import Finding, exhibits
from embattle.budget import grey_levels
from embattle.images import encode_png, from_tensor
from embattle.runs import Output
from embattle.scenarios.scenario import Measured
from embattle.scenarios.subject import Subject
from embattle.scenarios.universal import CARRIES, Draw, UniversalScenario

_NEUTRAL, _SHOWN = 127, 120


@dataclass(frozen=True, kw_only=True)
class SharedCell:
    """A universal scenario at one ε for the random target with a number; ε = 0 measures the clean system."""

    scenario: UniversalScenario
    eps: float
    number: int
    findings: int


@dataclass(frozen=True, kw_only=True)
class _Learnt:
    """A perturbation: (C, H, W) int16 grey levels, and what it cost."""

    levels: Tensor
    forwards: int
    backwards: int
    status: str


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Pictures with the perturbation on: as saved, as embedded, measured, and measured without it; None: no picture."""

    rows: Tensor
    saved: Tensor
    z: Tensor
    clean: Measured
    measured: Measured

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.z).all())

    @property
    def rank(self) -> float | None:
        return float(self.measured.metrics["rank"].mean()) if len(self.rows) else None

    @property
    def won(self) -> Tensor:
        """(n,) whether the goal holds that did not hold before."""
        return self.measured.goal & ~self.clean.goal

    @property
    def carried(self) -> float | None:
        """The share of pictures with the goal among those that it did not hold for anyway."""
        asked = ~self.clean.goal
        return int(self.won.sum()) / int(asked.sum()) if bool(asked.any()) else None


def shared_cell(subject: Subject, cell: SharedCell, config: AuditConfig) -> Output:
    """One row for the perturbation, its file, and findings among the unseen pictures.

    The row is one sample whatever the number of pictures: another perturbation, for another target, is the next one.
    """
    draw = cell.scenario.draw(subject, config.seed, cell.number, config.attacked)
    learnt = _learn(subject, cell, config, draw) if cell.eps else None
    seen, unseen = (_judge(subject, cell, config, draw, rows, learnt) for rows in (draw.seen, draw.unseen))
    name = subject.images.ids[draw.target]
    row = _row(cell, name, seen, unseen, learnt)
    if learnt is None:
        return Output(rows=[row])
    files, blobs = _files(learnt.levels)
    order = unseen.measured.metrics["rank"].sub(unseen.clean.metrics["rank"]).abs().argsort(descending=True, stable=True)
    aims = cell.scenario.aims_at(torch.zeros(1), draw.target)
    findings = [
        Finding(
            row=int(unseen.rows[i]), saved=unseen.saved[i], z=unseen.z[i : i + 1], aims=aims,
            levels=int((unseen.saved[i].int() - subject.images.images[unseen.rows[i]].int()).abs().max()),
            forwards=learnt.forwards,
        )
        for i in order.tolist() if unseen.finite and unseen.won[i]
    ]  # fmt: skip
    shown, pictures = exhibits(subject, cell.scenario, cell.eps, findings[: cell.findings])
    return Output(rows=[{**row, "perturbation": files}, *shown], blobs={**blobs, **pictures})


def build_shared(config: AuditConfig, eps: float) -> Attack:
    """The configured attack, for one perturbation of many pictures.

    An attack on single pictures has nobody's rule of averaging to follow: the stronger one is taken.

    Raises:
        ConfigError: as `build_attack`.
        BudgetError: as `build_attack`.
    """
    attack = build_attack(config, eps)
    return attack if attack.shared else replace(attack, averaged=False)


def _learn(subject: Subject, cell: SharedCell, config: AuditConfig, draw: Draw) -> _Learnt:
    objective = cell.scenario.objective(subject, draw.learnt, cell.scenario.aims_at(draw.learnt, draw.target))
    attack, count = build_shared(config, cell.eps), len(draw.learnt)
    result = attack(
        subject.embedder, subject.images.pixels(draw.learnt), objective, seed=config.seed,
        ids=[subject.images.ids[row] for row in draw.learnt.tolist()], groups=[0] * count, tile=config.tile,
    )  # fmt: skip
    assert result.perturbation is not None
    levels = grey_levels(result.perturbation[0].cpu())
    assert int(levels.abs().max()) <= math.floor(255 * cell.eps + 1e-6), "a perturbation left the budget"
    spent = {"forwards": int(result.forwards.sum()), "backwards": int(result.backwards.sum())}
    # A model that broke under the attack is no strong one, whatever the perturbation does in the end.
    broke, stuck = "non_finite" in result.status, set(result.status) == {"zero_gradient"}
    return _Learnt(levels=levels, status="non_finite" if broke else "zero_gradient" if stuck else "failed", **spent)


def _judge(
    subject: Subject, cell: SharedCell, config: AuditConfig, draw: Draw, rows: Tensor, learnt: _Learnt | None
) -> _Judged:
    aims, clean_z = cell.scenario.aims_at(rows, draw.target), subject.z[rows]
    saved, z = subject.images.images[rows], clean_z
    if not len(rows):
        nothing = Measured(metrics={"rank": torch.empty(0)}, goal=torch.empty(0, dtype=torch.bool))
        return _Judged(rows=rows, saved=saved, z=z, clean=nothing, measured=nothing)
    clean = cell.scenario.measure(subject, rows, aims, clean_z)
    if learnt is None:
        return _Judged(rows=rows, saved=saved, z=z, clean=clean, measured=clean)
    saved = (saved.int() + learnt.levels).clamp(0, 255).to(torch.uint8)
    z = subject.embedder.embed(saved, tile=config.tile)
    usable = torch.where(torch.isfinite(z).all(1, keepdim=True), z, clean_z)
    return _Judged(rows=rows, saved=saved, z=z, clean=clean, measured=cell.scenario.measure(subject, rows, aims, usable))


def _row(cell: SharedCell, target: str, seen: _Judged, unseen: _Judged, learnt: _Learnt | None) -> dict[str, Any]:
    finite, carried = seen.finite and unseen.finite, unseen.carried
    won = carried is not None and carried >= CARRIES
    status = "scored" if learnt is None else "non_finite" if not finite else "success" if won else learnt.status
    lost = status == "non_finite"
    metrics = {"rank": unseen.rank, "seen_rank": seen.rank, "carried": carried}
    return {
        "row": "sample", "threat": cell.scenario.name, "eps": cell.eps, "sample": target, "status": status,
        # No picture that the goal did not hold for anyway: undefined.
        "success": None if carried is None else won and not lost,
        "metrics": {name: None if lost else value for name, value in metrics.items()},
        "pictures": {"seen": len(seen.rows), "unseen": len(unseen.rows)},
        "cost": {"forwards": learnt.forwards if learnt else 0, "backwards": learnt.backwards if learnt else 0},
    }  # fmt: skip


def _files(levels: Tensor) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """The perturbation as an array for programs, exact, and as a picture for people, enlarged around grey."""
    stream = io.BytesIO()
    np.save(stream, levels.numpy(), allow_pickle=False)
    most = int(levels.abs().max())
    enlarged = (_NEUTRAL + levels.float() * (_SHOWN / max(most, 1))).round().clamp(0, 255).to(torch.uint8)
    data, picture = stream.getvalue(), encode_png(from_tensor(enlarged))
    array, shown = f"{_hash(data)}.npy", f"{_hash(picture)}.png"
    return {"array": array, "picture": shown, "levels": most}, {array: data, shown: picture}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
