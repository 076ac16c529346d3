"""Drawings inside a page: matplotlib's SVG, which takes its colours from the page (light or dark) and asks for nothing."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib wants real colours, the page wants its own: these stand in and are exchanged in the SVG.
TEXT, GRID, LINE, ATTACK, STRONG = "#010203", "#010204", "#010205", "#010206", "#010207"
_PAGE_COLOURS = {
    TEXT: "var(--muted)", GRID: "var(--line)", LINE: "var(--accent)", ATTACK: "var(--attack)", STRONG: "var(--text)",
}  # fmt: skip


# The page's own colours, light and dark, for a drawing that stands in no page.
_LIGHT = "--muted:#57606c;--line:#dde1e6;--accent:#2456b8;--attack:#b8430f;--text:#1a1f26"
_DARK = "--muted:#a3acb8;--line:#313842;--accent:#82aaff;--attack:#ff9c66;--text:#e4e7eb"


def on_its_own(svg: str) -> str:
    """A drawing of `drawn` as a file of its own, or for a page that has other colours: light or dark as the reader's."""
    style = f"<style>svg.chart{{{_LIGHT}}}@media (prefers-color-scheme:dark){{svg.chart{{{_DARK}}}}}</style>"
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def drawn(draw: Callable[[Figure], None], *, size: tuple[float, float], prefix: str, label: str) -> str:
    """An `<svg>` element without colours of its own; the same drawing, size and prefix always give the same text.

    Args:
        draw: draws into an empty figure, with the colours of this module.
        size: width and height in inches of 72 points, which fonts of 11 points are set against.
        prefix: begins every id inside, so that several drawings can live in one page.
        label: the drawing in words, for readers who cannot see it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": ["DejaVu Sans"], "font.size": 11,
        "text.parse_math": False, "text.color": TEXT, "axes.labelcolor": TEXT, "axes.titlecolor": TEXT,
        "xtick.color": TEXT, "ytick.color": TEXT, "axes.edgecolor": GRID, "axes.facecolor": "none",
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11, "axes.titlelocation": "left",
        "xtick.major.size": 3, "ytick.major.size": 0, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure)
        stream = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", metadata=nothing)
    return _for_page(stream.getvalue(), prefix=prefix, label=label)


def _for_page(svg: str, *, prefix: str, label: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for stand_in, colour in _PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    opening = f'<svg class="chart" role="img" aria-label="{html.escape(label)}" {box.group(0) if box else ""}'
    return f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'.strip()
