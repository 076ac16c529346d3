"""What ξ trades: the rank of chosen items against that of the neighbours to keep, ours beside the paper's, as an SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embattle.report.figures import Record, eps_decimal, number
from embattle.report.svg import ATTACK, LINE, STRONG, drawn, on_its_own
from embattle.report.terminal import without_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "xi.svg"
# What a protocol calls the attack of a column with a ξ: scenario, number of chosen items, networks if any, ξ.
_ATTACK = re.compile(r"(?P<family>.+)\.[a-z](?P<width>\d+)(?P<networks> \S+)? ξ (?P<xi>\d\S*)")
_CHOSEN, _KEPT = "rank", "kept_rank"
# A line needs two points; more panels than these would be too small to be read.
_FEWEST, _MOST_PANELS = 2, 6
# Left of this share of the axis there is no room for a label.
_EDGE = 0.01


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where one ξ puts both mean ranks, in %; None where that side has no figure."""

    xi: float
    ours: tuple[float, float] | None
    paper: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """An attack over ξ, by rising ξ; points hold (rank of the neighbours to keep, rank of the chosen items)."""

    title: str
    points: tuple[Point, ...]

    def side(self, name: str) -> list[tuple[float, float, float]]:
        """ξ and both ranks of "ours" or "paper", where there are any."""
        return [(point.xi, *place) for point in self.points if (place := getattr(point, name)) is not None]


def lines(result: Record) -> list[Line]:
    """Every attack that was run under several ξ: at its largest ε, with the fewest chosen items that there are.

    Args:
        result: the content of result.json; of columns without a ξ, and of results of earlier versions, there are none.
    """
    found: dict[str, dict[int, dict[float, dict[str, Record]]]] = {}
    largest = max((cell["eps"] for cell in result["cells"]), default=0.0)
    for cell in result["cells"]:
        told = _ATTACK.fullmatch(str(cell.get("attack", "")))
        if told is None or cell["eps"] != largest or largest == 0 or cell["metric"] not in (_CHOSEN, _KEPT):
            continue
        xi = _finite(told["xi"])
        if xi is not None:
            family = f"{told['family']}{told['networks'] or ''}"
            found.setdefault(family, {}).setdefault(int(told["width"]), {}).setdefault(xi, {})[cell["metric"]] = cell
    drawn = []
    for family, widths in found.items():
        width = min(widths)
        points = tuple(_point(xi, cells) for xi, cells in sorted(widths[width].items()))
        line = Line(title=f"{family}, {width} chosen, ε = {eps_decimal(largest)}", points=points)
        if max(len(line.side("ours")), len(line.side("paper"))) >= _FEWEST:
            drawn.append(line)
    return drawn[:_MOST_PANELS]


def trade_off_svg(result: Record) -> str:
    """A panel for each attack, ours beside the paper's, as an SVG file; "" where nothing was run under several ξ."""
    shown = lines(result)
    if not shown:
        return ""

    def draw(figure: Figure) -> None:
        for axes, line in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _draw(axes, line)

    return on_its_own(drawn(draw, size=(6.5 * len(shown), 4.6), prefix="xi", label=describe(shown)))


def describe(shown: Sequence[Line]) -> str:
    """The chart in words, for readers who cannot see it."""
    told = []
    for line in shown:
        for name in ("ours", "paper"):
            points = "; ".join(f"ξ {xi:g}: {kept:.1f} and {chosen:.1f}" for xi, kept, chosen in line.side(name))
            told.append(f"{without_control(line.title)}, {name}: {points or 'nothing yet'}.")
    return f"Mean rank in % of the neighbours to keep, and of the chosen items, for each ξ. {' '.join(told)}"


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _point(xi: float, cells: dict[str, Record]) -> Point:
    kept, chosen = cells.get(_KEPT), cells.get(_CHOSEN)
    if kept is None or chosen is None:
        return Point(xi=xi, ours=None, paper=None)
    ours = [None if cell["ours"] is None else cell["ours"]["value"] for cell in (kept, chosen)]
    return Point(xi=xi, ours=_both(*ours), paper=_both(kept["paper"], chosen["paper"]))


def _both(kept: float | None, chosen: float | None) -> tuple[float, float] | None:
    return None if kept is None or chosen is None else (float(kept), float(chosen))


def _draw(axes: Axes, line: Line) -> None:
    # Square roots give room to ranks near 0, where a disguise succeeds, and can show a rank of 0 itself.
    for scale in (axes.set_xscale, axes.set_yscale):
        scale("function", functions=(lambda v: np.sqrt(np.clip(v, 0, None)), np.square))
    highest = max(place[axis] for name in ("ours", "paper") for place in line.side(name) for axis in (1, 2))
    for name, colour, style, right in (("paper", ATTACK, (0, (4, 3)), True), ("ours", LINE, "solid", False)):
        places = line.side(name)
        if not places:
            continue
        kept, chosen = ([place[axis] for place in places] for axis in (1, 2))
        # Labels stand off the line: beside a falling one up to the right or down to the left, beside a rising one across.
        falls = (max(places, key=lambda place: place[1])[2] - min(places, key=lambda place: place[1])[2]) < 0
        axes.plot(kept, chosen, color=colour, linewidth=2, linestyle=style, marker="o", markersize=5, clip_on=False,
                  label=name)  # fmt: skip
        for xi, x, y in places:
            if not right and x < _EDGE * highest and any(xi == other for other, *_ in line.side("paper")):
                continue  # the label would lie on the axis, and its twin stands on the other side
            axes.annotate(
                f"ξ {number(xi, digits=0) if xi == int(xi) else f'{xi:g}'}", (x, y),
                (6 if right else -6, 5 if right == falls else -12), ha="left" if right else "right",
                textcoords="offset points", color=colour, fontsize=9,
            )  # fmt: skip
    ticks = [tick for tick in (0, 1, 5, 10, 20, 40, 60, 80, 100) if tick <= 1.25 * highest + 1]
    for set_ticks, set_limits in ((axes.set_xticks, axes.set_xlim), (axes.set_yticks, axes.set_ylim)):
        set_ticks(ticks)
        set_limits(0, max(1.08 * highest, 1))
    axes.minorticks_off()
    axes.grid(True)
    axes.set_title(without_control(line.title), pad=10)
    axes.set_xlabel("mean rank of the neighbours to keep (C_SP), %")
    axes.set_ylabel("mean rank of the chosen items (C), %")
    # The corner that no line passes: a trade falls to the right; where both ranks fall together, lines rise.
    kept, chosen = ([place[axis] for place in line.side("paper") or line.side("ours")] for axis in (1, 2))
    falls = chosen[kept.index(min(kept))] > chosen[kept.index(max(kept))]
    axes.legend(frameon=False, labelcolor=STRONG, loc="upper right" if falls else "upper left")
