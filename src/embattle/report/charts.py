"""The curve of one threat over ε as inline SVG that takes its colours from the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embattle.report.figures import Record, eps_decimal, eps_text, figure_text
from embattle.report.phrases import points
from embattle.report.svg import ATTACK, LINE, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_TICKS = 7


def curve_svg(threat: Record, *, prefix: str) -> str:
    """Headline metric with its interval, and the success share, over ε.

    Args:
        threat: a threat of a summary.
        prefix: begins every id inside the SVG, so that several figures can live in one page.

    Returns:
        An `<svg>` element without colours of its own; the same threat and prefix always give the same text.
    """

    def draw(figure: Figure) -> None:
        panels = _panels(threat)
        for axes, (name, title, scale, top) in zip(
            np.atleast_1d(figure.subplots(1, max(1, len(panels)))), panels, strict=False
        ):
            _draw(axes, threat, name, scale=scale, colour=ATTACK if name == "success" else LINE)
            axes.set_title("\n".join(textwrap.wrap(title, 62)), pad=10)
            axes.set_ylim(bottom=0.0 if axes.dataLim.ymin >= 0 else None, top=top)
            if name == "success":
                axes.axhline(50, color=ATTACK, linewidth=1, linestyle=(0, (4, 4)))

    return drawn(draw, size=(13, 3.5), prefix=prefix, label=describe(threat))


def _panels(threat: Record) -> list[tuple[str, str, float, float | None]]:
    """What is drawn: figure name, title, factor to the unit shown, upper end of the axis."""
    panels: list[tuple[str, str, float, float | None]] = []
    metric = str(threat.get("metric") or "")
    told = (threat.get("metrics") or {}).get(metric) or {}
    if metric != "success" and _has_values(threat, metric):
        unit = str(told.get("unit") or "")
        shown = "%" if unit == "share" else unit
        better = "higher" if told.get("higher_is_better", True) else "lower"
        title = f"{told.get('title') or metric}{f', {shown}' if shown else ''} ({better} is better for you)"
        panels.append((metric, title[:1].upper() + title[1:], 100.0 if unit == "share" else 1.0, None))
    if _has_values(threat, "success"):
        panels.append(("success", "Attempts that succeed, % (lower is better for you)", 100.0, 104.0))
    return panels


def _has_values(threat: Record, name: str) -> bool:
    return any((point["figures"].get(name) or {}).get("value") is not None for point in threat.get("curve", ()))


def _draw(axes: Axes, threat: Record, name: str, *, scale: float, colour: str) -> None:
    defined = [
        (float(point["eps"]), figure)
        for point in sorted(threat["curve"], key=lambda point: float(point["eps"]))
        if (figure := point["figures"].get(name)) is not None and figure.get("value") is not None
    ]
    eps = np.array([point for point, _ in defined])
    values = np.array([figure["value"] for _, figure in defined]) * scale
    low, high = (
        np.array([(figure.get("ci") or (figure["value"],) * 2)[side] for _, figure in defined]) * scale for side in (0, 1)
    )
    axes.fill_between(eps, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(eps, values, color=colour, linewidth=2, marker="o", markersize=5, clip_on=False)
    # Small budgets matter most: a square-root axis gives them room and still keeps distances in order.
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.clip(x, 0, None)), np.square))
    tested = sorted({float(point["eps"]) for point in threat["curve"]})
    axes.set_xlim(0.0, max(tested[-1], 1e-6) * 1.04)
    ticks = spread(tested, _MOST_TICKS)
    axes.set_xticks(ticks, [f"{eps_decimal(tick)}\n{eps_text(tick) if tick else 'clean'}" for tick in ticks], minor=False)
    axes.minorticks_off()


def spread(tested: Sequence[float], most: int) -> list[float]:
    """At most `most` of the tested ε, far enough apart on the square-root axis for their labels not to touch.

    >>> spread([0.0, 0.01, 0.03, 0.1, 0.3], 7)
    [0.0, 0.01, 0.03, 0.1, 0.3]
    """
    if not tested:
        return []
    gap = max(np.sqrt(tested[-1]) / most, 1e-9) * 0.9
    kept = [tested[-1]]
    for eps in reversed(tested[:-1]):
        if np.sqrt(kept[-1]) - np.sqrt(eps) >= gap:
            kept.append(eps)
    return kept[::-1]


def describe(threat: Record) -> str:
    """The curve in words, for readers who cannot see it."""
    metric = str(threat.get("metric") or "success")
    told = [
        f"at ε = {eps_decimal(point['eps'])} {metric} {figure_text(point['figures'].get(metric))}"
        f", success {figure_text(point['figures'].get('success'), digits=0)}"
        for point in points(threat)
    ]
    return f"Curve over ε: {'; '.join(told)}."
