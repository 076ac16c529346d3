"""Units that try a few pictures in several ways, to see whether the model's gradients can be trusted; judged in `records`.

The objective is the embedding shift: it takes no labels and no targets, and a change that does anything at all moves it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from embattle.attacks import pgd
from embattle.audit.config import AuditConfig
from embattle.audit.random_search import random_search
from embattle.budget import Linf
from embattle.runs import Output
from embattle.scenarios.scenario import named
from embattle.scenarios.subject import Subject

PICTURES = 16
"""How many pictures are tried: enough to see gradients that lead nowhere, few enough to cost little."""
_STEPS, _QUERIES = 32, 96


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One way of trying: with gradients ("white") or without ("black"), at an ε, with so many steps or queries."""

    role: Literal["white", "black"]
    eps: float
    steps: int

    @property
    def params(self) -> dict[str, Any]:
        """What makes it another unit than its neighbours."""
        return {"role": self.role, "eps": self.eps, "steps": self.steps}

    @property
    def title(self) -> str:
        """For the progress bar."""
        how = f"{self.steps} steps" if self.role == "white" else f"{self.steps} guesses"
        return f"masking: ε {self.eps:.3g}, {how}"


def probes(config: AuditConfig) -> list[Probe]:
    """A quarter, half and all of the largest ε, and 1; a quarter of the steps, and twice as many; and guessing."""
    largest, steps = max(config.eps), config.steps or _STEPS
    base = largest if largest < 1 else 0.5
    # Nothing below one grey level, which a saved picture cannot show, unless that is what was asked for.
    least = min(base, 1 / 255)
    sizes = sorted({max(base / 4, least), max(base / 2, least), base, 1.0})
    white = [Probe(role="white", eps=eps, steps=steps) for eps in sizes]
    white += [Probe(role="white", eps=base, steps=count) for count in sorted({max(steps // 4, 1), 2 * steps} - {steps})]
    return [*white, Probe(role="black", eps=base, steps=_QUERIES)]


def probe_cell(subject: Subject, probe: Probe, samples: tuple[str, ...], config: AuditConfig) -> Output:
    """One row for every picture: how far its embedding moved, whether it left its first page, and at what cost.

    White-box probes are projected gradient ascent whose steps suit their ε and number (α = 2.5 ε / steps), so that ε and
    steps are compared and not how far a fixed α comes.
    """
    rows = subject.images.positions(samples)
    scenario = named("shift")
    if probe.role == "white":
        attack = replace(pgd(budget=Linf(probe.eps), steps=probe.steps), precision=config.precision)
        objective = scenario.objective(subject, rows, {})
        result = attack(
            subject.embedder, subject.images.pixels(rows), objective, seed=config.seed, ids=samples, tile=config.tile
        )
        saved = result.eight_bit_images.cpu()
        forwards = result.forwards.tolist()
        live = (1 - result.zero_gradient_steps.double() / probe.steps).tolist()
    else:
        saved = _guessed(subject, probe, rows, samples, config)
        forwards, live = [probe.steps] * len(samples), [None] * len(samples)
    z = subject.embedder.embed(saved, tile=config.tile)
    finite = torch.isfinite(z).all(1)
    measured = scenario.measure(subject, rows, {}, torch.where(finite.unsqueeze(1), z, subject.z[rows]))
    told = [
        {
            "row": "masking", "role": probe.role, "eps": probe.eps, "steps": probe.steps, "sample": samples[i],
            "loss": float(measured.metrics["distance"][i]) if finite[i] else None,
            "success": bool(measured.goal[i]) if finite[i] else None, "live": live[i], "forwards": int(forwards[i]),
        }
        for i in range(len(samples))
    ]  # fmt: skip
    return Output(rows=told, cost={"samples": float(len(samples))})


def _guessed(subject: Subject, probe: Probe, rows: Tensor, samples: tuple[str, ...], config: AuditConfig) -> Tensor:
    similarity, clean = subject.similarity, subject.z[rows]

    def shift(pictures: Tensor) -> Tensor:
        z = subject.embedder.embed(pictures, tile=config.tile)
        return similarity.distance(similarity.pair(z, clean))

    pictures = subject.images.images[rows]
    return random_search(pictures, shift, eps=probe.eps, queries=probe.steps, seed=config.seed, ids=samples)
