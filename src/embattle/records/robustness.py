"""ERS, the empirical robustness score: ten attacks, each turned into a score of 0 to 100, and their mean. No torch.

From Zhou et al. 2021 (*Adversarial Attack and Defense in Deep Ranking*) and its public implementation, with 28 x 28
pictures, ε = 77/255 and 32 steps of 3/255. `ers` is computed on corrected attacks; `ers-legacy` puts two of them back into
the form in which published scores were made, for comparison with published tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embattle.records.figure import Figure
from embattle.records.intervals import wilson

ERS, ERS_LEGACY = "ers", "ers-legacy"
# Embeddings whose lengths differ from 1 by no more than this are on the unit sphere.
_ON_SPHERE = 1e-3
_METHOD = "mean of ten scores; its ends are the means of the ten scores' ends, however these depend on each other"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the ten: a figure of a threat, and the line that turns it into a score.

    Args:
        name: as in published tables.
        threat: the scenario.
        figure: which of its figures.
        offset, factor: score = offset + factor · value.
        formula: the same for people.
        rate: whether the figure is a share of pictures in %: its interval is then Wilson's, since a bootstrap of pictures
            that all agree has no width.
        legacy: the scenario of the legacy score, where it is another one.
        on_sphere: whether the score means anything only for embeddings of length 1.
    """

    name: str
    threat: str
    figure: str
    offset: float
    factor: float
    formula: str
    rate: bool = False
    legacy: str = ""
    on_sphere: bool = False

    def score(self, measured: Figure) -> Figure:
        """The figure on the scale of scores: 0 for a system that gives in, 100 for one that does not."""

        def line(value: float) -> float:
            return self.offset + self.factor * value

        ends = None if measured.ci is None else sorted(line(end) for end in measured.ci)
        return Figure(
            value=None if measured.value is None else line(measured.value), unit="", n=measured.n,
            undefined=measured.undefined, failed=measured.failed, ci=None if ends is None else (ends[0], ends[1]),
            method=measured.method, higher_is_better=True,
        )  # fmt: skip


def _share(name: str, threat: str, figure: str, **more: Any) -> Part:
    return Part(name=name, threat=threat, figure=figure, offset=0.0, factor=1.0, formula=name, rate=True, **more)


PARTS = (
    Part(name="CA+", threat="ca+.w1", figure="rank", offset=0.0, factor=2.0, formula="2 · CA+"),
    Part(name="CA−", threat="ca-.w1", figure="rank", offset=100.0, factor=-1.0, formula="100 − CA−"),
    Part(name="QA+", threat="qa+.m1", figure="rank", offset=0.0, factor=2.0, formula="2 · QA+"),
    Part(name="QA−", threat="qa-.m1", figure="rank", offset=100.0, factor=-1.0, formula="100 − QA−"),
    Part(name="TMA", threat="tma", figure="cosine", offset=100.0, factor=-100.0, formula="100 · (1 − TMA)", on_sphere=True),
    Part(
        name="ES:D", threat="es", figure="max_shift", offset=100.0, factor=-50.0, formula="50 · (2 − ES:D)", on_sphere=True
    ),
    _share("ES:R", "es", "recall@1"),
    _share("LTM", "ltm", "recall@1", legacy="ltm-legacy"),
    _share("GTM", "gtm", "recall@1", legacy="gtm-legacy"),
    _share("GTT", "gtt", "retain@4"),
)
NEEDED = tuple(dict.fromkeys([part.threat for part in PARTS] + [part.legacy for part in PARTS if part.legacy]))
"""The scenarios of both scores."""
LEGACY = tuple(part.legacy for part in PARTS if part.legacy)
"""Scenarios that are there for comparison with published tables only; what they say of a system is not graded."""


def empirical_robustness(scores: Sequence[Figure | None]) -> Figure:
    """The mean of ten scores; without a value where one of them has none.

    Its interval does not take the ten for independent, because the same pictures are attacked: the ends are the means of
    the ten scores' ends, which holds also where all ten fall and rise together.

    Args:
        scores: of the ten parts, in the order of `PARTS`; None: not measured.
    """
    known = [score for score in scores if score is not None and score.value is not None]
    counts = {
        "undefined": max((score.undefined for score in scores if score is not None), default=0),
        "failed": max((score.failed for score in scores if score is not None), default=0),
    }
    if len(scores) != len(PARTS) or len(known) != len(PARTS):
        return Figure(value=None, unit="", n=0, ci=None, method=_METHOD, higher_is_better=True, **counts)
    ends = [score.ci for score in known if score.ci is not None]
    low, high = (sum(end[place] for end in ends) / len(PARTS) for place in (0, 1))
    return Figure(
        value=sum(score.value for score in known if score.value is not None) / len(PARTS), unit="",
        n=min(score.n for score in known), ci=(low, high) if len(ends) == len(PARTS) else None, method=_METHOD,
        higher_is_better=True, **counts,
    )  # fmt: skip


def planned_robustness(threats: Iterable[str], eps: Iterable[float], *, suite: str) -> dict[str, Any] | None:
    """Which scores a run is going to have, without values; None where it is not about them."""
    if not concerned(threats, suite=suite):
        return None
    return {"curve": [{"eps": value, "figures": dict.fromkeys((ERS, ERS_LEGACY))} for value in eps if value > 0]}


def concerned(threats: Iterable[str], *, suite: str) -> bool:
    """Whether a run is about ERS: its suite says so, or it has all ten attacks anyway."""
    return suite == "ers" or {part.threat for part in PARTS} <= set(threats)


def build_robustness(subject: Mapping[str, Any], threats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Both scores with their ten parts at every tested ε, from the threats of a summary.

    Args:
        subject: what the run says of its model.
        threats: with their curves.

    Returns:
        "refused": why a score cannot be told for this model, or None; "curve": for every ε above 0 "figures" (`ers` and
        `ers-legacy`), "parts" (for both: threat, measured figure and score) and "missing" (for both: parts without one).
    """
    curves = {threat["threat"]: threat["curve"] for threat in threats if threat["threat"] in NEEDED}
    tested = sorted({point["eps"] for curve in curves.values() for point in curve if point["eps"] > 0})
    refused = _refusal(subject)
    return {"refused": refused, "curve": [_point(curves, eps, on_sphere=refused is None) for eps in tested]}


def _point(curves: Mapping[str, Sequence[Mapping[str, Any]]], eps: float, *, on_sphere: bool) -> dict[str, Any]:
    scores: dict[str, list[Figure | None]] = {ERS: [], ERS_LEGACY: []}
    missing: dict[str, list[str]] = {ERS: [], ERS_LEGACY: []}
    rows = []
    for part in PARTS:
        row: dict[str, Any] = {"part": part.name, "formula": part.formula}
        for name, threat in ((ERS, part.threat), (ERS_LEGACY, part.legacy or part.threat)):
            measured = _measured(curves, threat, part, eps)
            score = part.score(measured) if measured is not None and (on_sphere or not part.on_sphere) else None
            scores[name].append(score)
            if measured is None or measured.value is None:
                missing[name].append(part.name)
            row[name] = {"threat": threat, "measured": _json(measured), "score": _json(score)}
        rows.append(row)
    figures = {name: empirical_robustness(each).to_json() for name, each in scores.items()}
    return {"eps": eps, "figures": figures, "parts": rows, "missing": missing}


def _measured(curves: Mapping[str, Sequence[Mapping[str, Any]]], threat: str, part: Part, eps: float) -> Figure | None:
    for point in curves.get(threat, ()):
        if math.isclose(point["eps"], eps) and part.figure in point["figures"]:
            figure = Figure.from_json(point["figures"][part.figure])
            return _as_rate(figure) if part.rate and figure.value is not None else figure
    return None


def _as_rate(figure: Figure) -> Figure:
    assert figure.value is not None
    low, high = wilson(round(figure.value * figure.n / 100), figure.n)
    return replace(figure, ci=(100 * low, 100 * high), method="share; Wilson score 95 %")


def _json(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.to_json()


def _refusal(subject: Mapping[str, Any]) -> str | None:
    """Why TMA's cosine and the shift out of 2 are no scores of this model, or None."""
    if subject.get("similarity", "cosine") == "cosine":
        return None
    lengths = subject.get("lengths")
    if lengths and all(abs(length - 1) <= _ON_SPHERE for length in lengths):
        return None
    measured = f" of length {lengths[0]:.3g} to {lengths[1]:.3g}" if lengths else ""
    return (
        f"ERS is defined on the unit sphere, where no shift exceeds 2 and the cosine ranks as the distance does; this "
        f"model compares embeddings{measured} by the {subject['similarity']} distance, so that 50 · (2 − ES:D) and "
        f"100 · (1 − TMA) mean nothing. The other eight scores stand; for ERS normalise the embeddings in the model, or "
        f"compare them by the cosine."
    )
