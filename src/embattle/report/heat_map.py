"""Who fools whom: one threat at one ε as a matrix of models, rows crafted on, columns judged on, numbers in the cells."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embattle.report.figures import Record, eps_decimal, figure_text, number, short_name
from embattle.report.svg import ATTACK, GRID, LINE, STRONG, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAN = "no attack"
# Beyond this tint text on the page's own colours would not be readable, light or dark.
STRONGEST_TINT = 0.5
_LONGEST, _LINE_WIDTH = 26, 13
# In inches: a page is 13 wide; a row and a column of numbers need this much at least.
_WIDTH, _ROW, _COLUMN, _MARGIN, _HEAD = 13.0, 0.5, 0.62, 2.2, 1.3


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One matrix: its title, and for every row and column a text and how strong the attack is there, 0 to 1."""

    title: str
    rows: Sequence[str]
    texts: Mapping[tuple[str, str], str]
    strengths: Mapping[tuple[str, str], float]


def heat_map_svg(threat: Record, matrix: Record, models: Sequence[str], *, prefix: str) -> str:
    """Headline metric and share of successes of one matrix.

    Args:
        threat: a threat of a transfer's record.
        matrix: one of its matrices.
        models: names in the order of rows and columns.
        prefix: begins every id inside the SVG.

    Returns:
        An `<svg>` element without colours of its own.
    """
    panels = [_metric_panel(threat, matrix, models), _success_panel(matrix, models)]
    rows = max(len(panel.rows) for panel in panels)
    size = (max(_WIDTH, 2 * (_MARGIN + _COLUMN * len(models))), _HEAD + _ROW * rows)

    def draw(figure: Figure) -> None:
        for axes, panel in zip(figure.subplots(1, 2), panels, strict=True):
            _draw(axes, panel, models)

    return drawn(draw, size=size, prefix=prefix, label=describe(threat, matrix))


def describe(threat: Record, matrix: Record) -> str:
    """A matrix in words."""
    metric = str(threat["metric"])
    told = [
        f"crafted on {cell['source']}, judged on {cell['target']}: {metric} {figure_text(cell['figures'].get(metric))}, "
        f"success {figure_text(cell['figures'].get('success'), digits=0)}"
        for cell in matrix["cells"]
    ]
    return f"Matrix at ε = {eps_decimal(matrix['eps'])}: {'; '.join(told)}."


def _metric_panel(threat: Record, matrix: Record, models: Sequence[str]) -> _Panel:
    metric = str(threat["metric"])
    told = threat["metrics"][metric]
    clean = {cell["target"]: cell["figures"].get(metric) for cell in threat["clean"]}
    cells = {(cell["source"], cell["target"]): cell["figures"].get(metric) for cell in matrix["cells"]}
    better = "higher" if told["higher_is_better"] else "lower"
    unit = "%" if told["unit"] == "share" else told["unit"]
    title = f"{str(told['title'])[:1].upper()}{str(told['title'])[1:]}, {unit} ({better} is better for you)"
    sources = [name for name in models if any(source == name for source, _ in cells)]
    texts = {(CLEAN, target): _number(figure) for target, figure in clean.items()}
    texts |= {place: _number(figure) for place, figure in cells.items()}
    strengths = _strengths(cells, clean, falls=bool(told["higher_is_better"]))
    return _Panel(title=title, rows=[CLEAN, *sources], texts=texts, strengths=strengths)


def _strengths(
    cells: Mapping[tuple[str, str], Record | None], clean: Mapping[str, Record | None], *, falls: bool
) -> dict[tuple[str, str], float]:
    """Which part of the way from the clean figure to the worst one each attack goes."""
    moved = {}
    for (source, target), figure in cells.items():
        before = clean.get(target)
        if figure is None or before is None or figure["value"] is None or before["value"] is None:
            continue
        change = (before["value"] - figure["value"]) * (1 if falls else -1)
        left = (before["value"] if falls else 100 - before["value"]) if figure["unit"] == "%" else None
        moved[source, target] = (max(change, 0.0), left)
    # A distance has no worst value: the largest one of the matrix stands in.
    most = max((change for change, _ in moved.values()), default=0.0)
    return {place: min(change / ((most if left is None else left) or 1.0), 1.0) for place, (change, left) in moved.items()}


def _success_panel(matrix: Record, models: Sequence[str]) -> _Panel:
    cells = {(cell["source"], cell["target"]): cell["figures"].get("success") for cell in matrix["cells"]}
    sources = [name for name in models if any(source == name for source, _ in cells)]
    known = {place: figure["value"] for place, figure in cells.items() if figure and figure["value"] is not None}
    return _Panel(
        title="Attempts that succeed, % (lower is better for you)", rows=["", *sources],
        texts={place: _number(figure) for place, figure in cells.items()}, strengths=known,
    )  # fmt: skip


def _number(figure: Record | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    if figure["unit"] == "share":
        return number(100 * figure["value"], digits=0)
    return number(figure["value"], digits=1 if figure["unit"] == "%" else None)


def _draw(axes: Axes, panel: _Panel, models: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    axes.set(xlim=(0, len(models)), ylim=(len(panel.rows), 0))
    axes.grid(False)
    for row, source in enumerate(panel.rows):
        for column, target in enumerate(models):
            if (text := panel.texts.get((source, target))) is None:
                continue
            tint = STRONGEST_TINT * panel.strengths.get((source, target), 0.0)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=ATTACK, alpha=tint, linewidth=0))
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor="none", edgecolor=GRID, linewidth=0.8))
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=STRONG, fontsize=12)
    for name in models:
        if name in panel.rows and (name, name) in panel.texts:
            corner = (models.index(name) + 0.04, list(panel.rows).index(name) + 0.06)
            axes.add_patch(Rectangle(corner, 0.92, 0.88, facecolor="none", edgecolor=LINE, linewidth=1.6))
    axes.set_xticks([i + 0.5 for i in range(len(models))], [_label(name) for name in models])
    axes.set_yticks([i + 0.5 for i in range(len(panel.rows))], [_label(name) for name in panel.rows])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("crafted on")
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("judged on", labelpad=8)
    axes.set_title("\n".join(textwrap.wrap(panel.title, 66)), pad=10)


def _label(name: str) -> str:
    return "\n".join(textwrap.wrap(short_name(name, _LONGEST), _LINE_WIDTH, max_lines=2, placeholder="…"))


def strongest_transfer(threat: Record) -> tuple[Record, Record] | None:
    """The matrix and the cell off the diagonal with the largest share of successes; None where there is none."""
    found = [
        (cell["figures"]["success"]["value"], -matrix["eps"], -place, matrix, cell)
        for matrix in threat["matrices"]
        for place, cell in enumerate(matrix["cells"])
        if not cell["white_box"] and cell["figures"]["success"]["value"] is not None
    ]
    if not found:
        return None
    *_, matrix, cell = max(found, key=lambda entry: entry[:3])
    return matrix, cell
