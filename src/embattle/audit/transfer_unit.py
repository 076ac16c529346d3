"""One unit of a transfer: pictures crafted on one model, saved with 8 bits, and judged on every model.

The attacker knows the model they craft on, and sees the lists of the model they mean. A picture is judged by what the
judging model's own gallery asks of it. What it is crafted for is the same, seen from the crafting model: queries or
candidates drawn from the whole gallery are the same for all models, so one picture serves all of them; those drawn from a
first page belong to the judging model, and the picture is made for it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from embattle.audit.attack_unit import Cell, craft, judge
from embattle.audit.config import AuditConfig
from embattle.records.transfer import ATTACK_SECONDS
from embattle.runs import Output
from embattle.scenarios.crossing import Aims, crafted_for
from embattle.scenarios.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The pictures of a cell, crafted on one model and judged on all.

    Args:
        cell: scenario, ε and pictures; `findings` are kept for each judging model but the crafting one.
        source: fingerprint of the model they are crafted on; None at ε = 0, where nobody crafts.
    """

    cell: Cell
    source: str | None


def cross(subjects: Mapping[str, Subject], crossing: Crossing, config: AuditConfig) -> Output:
    """Rows for every picture on every model, and findings.

    Args:
        subjects: the models with their galleries by fingerprint, in the order in which they are judged.
        crossing: what is crafted on which of them.
        config: how.

    Returns:
        Each row has the fingerprints "source" and "target", and as "attack" the number of the attack within the unit, so
        that one by which several models were judged is counted once.
    """
    rows: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    cost: dict[str, float] = {}
    judged = {target: _aims(subject, crossing.cell, config.seed) for target, subject in subjects.items()}
    for number, (aims, targets) in enumerate(_attacks(judged, crossing.source)):
        made = None if crossing.source is None else craft(subjects[crossing.source], crossing.cell, config, aims)
        for target in targets:
            # On the model it was crafted on, a picture is what an audit shows.
            cell = replace(crossing.cell, findings=0) if target == crossing.source else crossing.cell
            output = judge(subjects[target], cell, config, judged[target], made)
            rows += [{**row, "source": crossing.source, "target": target, "attack": number} for row in output.rows]
            blobs |= output.blobs
            if made is not None:
                cost[f"{ATTACK_SECONDS}{target}"] = made.seconds
    return Output(rows=rows, blobs=blobs, cost=cost)


def _attacks(judged: Mapping[str, Aims], source: str | None) -> list[tuple[Aims, list[str]]]:
    """What each attack is crafted for, with the models it serves."""
    if source is None:
        return [({}, list(judged))]
    found: list[tuple[Aims, list[str]]] = []
    for target, theirs in judged.items():
        aims = crafted_for(judged[source], theirs)
        served = next((targets for other, targets in found if _equal(aims, other)), None)
        if served is None:
            found.append((aims, [target]))
        else:
            served.append(target)
    return found


def _equal(first: Aims, second: Aims) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def _aims(subject: Subject, cell: Cell, seed: int) -> Aims:
    return cell.scenario.aims(subject, subject.images.positions(cell.samples), seed)
