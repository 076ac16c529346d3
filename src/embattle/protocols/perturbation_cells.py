"""Cells of universal perturbations: one is learnt for each random target, and judged on seen and unseen pictures.

A row is a perturbation. As everywhere in a protocol it is measured on float pictures, as the paper does, and on saved ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embattle.attacks import Attack, AttackResult, Objective
from embattle.budget import grey_levels
from embattle.scenarios import Subject
from embattle.scenarios.universal import Draw, UniversalScenario

# The paper learns from 5 % of the gallery, and judges lowering attacks on the 1 % nearest to the target.
LEARNT_FROM, NEAREST = 0.05, 0.01
Metrics = Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What one perturbation does: mean ranks over seen and unseen pictures; None where the model gave NaN for one.

    Args:
        found: on the pictures as the attack has them; without an attack, on the clean ones.
        eight_bit: on saved ones; None without an attack.
        loss: mean of the attacker's over the pictures it is learnt from.
        forwards: of all of them together.
        seconds: of the attack.
    """

    found: Metrics
    eight_bit: Metrics = None
    loss: float | None = None
    forwards: int = 0
    seconds: float = 0.0


def perturb(
    subject: Subject, scenario: UniversalScenario, number: int, attack: Attack | None, *, seed: int, tile: int
) -> Perturbation:
    """Learns the perturbation of the target with a number, and judges it.

    Args:
        subject: the system.
        scenario: what is wanted.
        number: of the target, counting from 0.
        attack: how; None: nobody attacks.
        seed: of target and pictures, and of the attack.
        tile: physical batch size of the attack.
    """
    draw = scenario.draw(subject, seed, number, int(LEARNT_FROM * len(subject.images)), nearest=NEAREST)
    if attack is None:
        return Perturbation(
            found=_ranks(subject, scenario, draw, {"seen": subject.z[draw.seen], "unseen": subject.z[draw.unseen]})
        )
    result = _learnt(subject, scenario, draw, attack, seed=seed, tile=tile)
    assert result.perturbation is not None
    delta = result.perturbation[0].cpu()
    levels = grey_levels(delta)
    clean = {"seen": subject.images.images[draw.seen], "unseen": subject.images.images[draw.unseen]}
    floats = {which: (images.float() / 255 + delta).clamp(0, 1) for which, images in clean.items()}
    saved = {which: (images.int() + levels).clamp(0, 255).to(torch.uint8) for which, images in clean.items()}
    found, eight_bit = (
        _ranks(subject, scenario, draw, {which: subject.embedder.embed(x, tile=tile) for which, x in pictures.items()})
        for pictures in (floats, saved)
    )
    return Perturbation(
        found=found, eight_bit=eight_bit, loss=float(result.loss.double().mean()), forwards=int(result.forwards.sum()),
        seconds=result.seconds,
    )  # fmt: skip


def _learnt(
    subject: Subject, scenario: UniversalScenario, draw: Draw, attack: Attack, *, seed: int, tile: int
) -> AttackResult:
    objective: Objective = scenario.objective(subject, draw.learnt, scenario.aims_at(draw.learnt, draw.target))
    ids = [subject.images.ids[row] for row in draw.learnt.tolist()]
    return attack(
        subject.embedder,
        subject.images.pixels(draw.learnt),
        objective,
        seed=seed,
        ids=ids,
        groups=[0] * len(ids),
        tile=tile,
    )


def _ranks(subject: Subject, scenario: UniversalScenario, draw: Draw, z: Mapping[str, Tensor]) -> Metrics:
    means = {}
    for metric, which, rows in (("rank", "unseen", draw.unseen), ("seen_rank", "seen", draw.seen)):
        if not torch.isfinite(z[which]).all():
            return None
        measured = scenario.measure(subject, rows, scenario.aims_at(rows, draw.target), z[which])
        means[metric] = float(measured.metrics["rank"].mean())
    return means


def rows_of(shared: Mapping[str, Any], numbers: Mapping[str, Perturbation]) -> list[dict[str, Any]]:
    """The record of each perturbation, by the names of their targets; `shared` is what all have in common."""
    return [
        {
            **shared, "row": "sample", "sample": name, "metrics": each.found, "eight_bit": each.eight_bit,
            "loss": each.loss, "forwards": each.forwards,
        }
        for name, each in numbers.items()
    ]  # fmt: skip
