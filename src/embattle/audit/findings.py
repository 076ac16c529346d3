"""Findings: the pictures and lists by which a person sees what an attack did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from embattle.images import difference, encode_png, from_tensor, thumbnail
from embattle.scenarios.scenario import Scenario, Shown
from embattle.scenarios.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One successful picture: where it stood, what was saved (uint8), where it is embedded (1, D), and what it cost."""

    row: int
    saved: Tensor
    z: Tensor
    aims: Mapping[str, Tensor]
    levels: int
    forwards: int


def exhibits(
    subject: Subject, scenario: Scenario, eps: float, findings: Sequence[Finding]
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Rows of kind "finding" and the PNG files they speak of."""
    album = _Album(subject)
    return [_finding_row(subject, scenario, eps, finding, album) for finding in findings], album.blobs


class _Album:
    """PNG files by name; a name is its content's hash, so a picture that appears twice is kept once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.blobs: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        name = f"{hashlib.sha256(data).hexdigest()[:16]}.png"
        self.blobs[name] = data
        return name

    def item(self, position: int) -> str:
        return self.small(self._subject.images.images[position])

    def small(self, picture: Tensor) -> str:
        return self.add(encode_png(thumbnail(from_tensor(picture))))


def _finding_row(subject: Subject, scenario: Scenario, eps: float, finding: Finding, album: _Album) -> dict[str, Any]:
    original = from_tensor(subject.images.images[finding.row])
    adversarial = from_tensor(finding.saved)
    shown = scenario.exhibit(subject, finding.row, finding.aims, finding.z)
    change = finding.saved.float() / 255 - subject.images.pixels([finding.row])[0]
    lists = [
        {"title": title, "items": [_item(subject, entry, finding, album) for entry in entries]}
        for title, entries in ((shown.before_title, shown.before), (shown.after_title, shown.after))
    ]
    anchor = None if shown.anchor is None else {"label": shown.anchor_label, "blob": album.item(shown.anchor)}
    return {
        "row": "finding", "threat": scenario.name, "eps": eps, "sample": subject.images.ids[finding.row],
        "title": shown.title, "original": album.add(encode_png(original)),
        "adversarial": album.add(encode_png(adversarial)),
        "difference": album.add(encode_png(difference(original, adversarial))), "lists": lists, "anchor": anchor,
        "rank_before": shown.rank_before, "rank_after": shown.rank_after, "linf": finding.levels / 255,
        "l2": float(change.norm()), "forwards": finding.forwards,
    }  # fmt: skip


def _item(subject: Subject, entry: Shown, finding: Finding, album: _Album) -> dict[str, Any]:
    position = finding.row if entry.position is None else entry.position
    return {
        "id": subject.images.ids[position],
        "blob": album.small(finding.saved) if entry.position is None else album.item(position),
        "similarity": entry.similarity, "rank": entry.rank, "framed": entry.framed,
    }  # fmt: skip
