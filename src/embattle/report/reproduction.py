"""A published experiment beside ours: result.json, the same as Markdown and CSV, and a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embattle.records.atomic import write_atomic
from embattle.records.summary import write_json_atomic
from embattle.report.figures import Record, eps_decimal, interval_text, number, value_text
from embattle.report.terminal import safe_text
from embattle.report.trade_off import NAME, lines, trade_off_svg

if TYPE_CHECKING:
    from rich.table import Table

_HEADER = (
    "column", "ε", "paper", "ours [95 % over pictures]", "difference", "tolerance", "verdict", "deviation of seeds",
    "saved, 8-bit", "adaptive [95 % over pictures]", "adaptive loss ≥", "free point", "forwards", "seconds",
)  # fmt: skip
_NONE = "–"
# Each sentence with a column that it speaks of: where nobody sees the column, the sentence would explain nothing.
_LEGEND = (
    ("paper", "*paper*: as published."),
    (
        "ours [95 % over pictures]",
        "*ours*: the paper's objective and step rule, the iterate with the highest loss, mean over all pictures of all "
        "seeds; float pictures, as in the paper. Its interval is over pictures.",
    ),
    ("deviation of seeds", "*deviation of seeds*: how far models differ."),
    (
        "tolerance",
        "*tolerance*: the largest of the stated one, two deviations between seeds, and half of the interval.",
    ),
    (
        "verdict",
        "*verdict*: same within it; beyond it stronger or weaker, seen from the attacker; none for the clean system.",
    ),
    ("saved, 8-bit", "*saved, 8-bit*: the same attack measured on the picture a PNG file holds."),
    (
        "adaptive [95 % over pictures]",
        "*adaptive*: Auto-PGD on the same pictures with equally many forwards; *adaptive loss ≥*: mean gain of its "
        "objective over *ours*, paired, and the share of pictures on which it is at least as large.",
    ),
    (
        "free point",
        "*free point*: the best mean rank that ascent of a free point of the unit sphere comes by, which no picture need "
        "have and which nothing need preserve: what there is to win.",
    ),
    ("forwards", "*forwards*, *seconds*: of *ours*, a picture."),
)
_PRESERVING = "*C_SP*: mean rank of the neighbours to keep, in %; other lines: of the chosen items (C)."

_SHORT_LEGEND = (
    "95 %: of ours, over pictures. verdict: same within tol., else stronger or weaker as an attack; – not judged. "
    "adaptive: Auto-PGD, equally many forwards."
)


def write_reproduction(folder: Path, result: Record) -> Path | None:
    """Writes result.json, result.md and result.csv, and xi.svg where attacks were run under several ξ.

    Whoever looks sees old files or whole new ones.

    Returns:
        The path of xi.svg, or None where there is nothing to draw.

    Raises:
        InputError: the folder cannot be written.
        RunIncomplete: the disk is full.
    """
    write_json_atomic(folder / "result.json", result)
    chart = trade_off_svg(result)
    if chart:
        write_atomic(folder / NAME, chart.encode("utf-8", "replace"))
    write_atomic(folder / "result.md", render_reproduction(result).encode())
    write_atomic(folder / "result.csv", _csv(result).encode())
    return folder / NAME if chart else None


def render_reproduction(result: Record) -> str:
    """Markdown: what was run, each cell beside the paper's, where it came from."""
    columns = _columns(result["cells"])
    blocks = [
        f"# {result['title']}", f"{result['paper']}. {_scale(result)}", _notes(result),
        _state(result), _quality(result), _training(result), _scores(result),
        f"![What ξ trades]({NAME})" if lines(result) else "", _markdown_table(columns), _legend(result, columns),
        "Differs from the paper:",
        "\n".join(f"- {sentence}" for sentence in result["differs"]), _provenance(result),
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


def reproduction_table(result: Record) -> Table:
    """Every cell with a figure of the paper, in 80 columns of the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = safe_text(f"{result['protocol']}, scale {result['scale']}")
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False,
        padding=(0, 1, 0, 0), caption=_SHORT_LEGEND, caption_justify="left", caption_style="",
    )  # fmt: skip
    for name in ("column", "ε", "paper", "ours", "95 %", "tol.", "verdict", "adaptive"):
        table.add_column(name, justify="left" if name in ("column", "verdict") else "right", no_wrap=True)
    for cell in result["cells"]:
        verdict = cell["verdict"]
        table.add_row(
            safe_text(cell["column"]), eps_decimal(cell["eps"]), _number(cell, cell["paper"]), _value(cell, "ours"),
            interval_text(cell["ours"], digits=_digits(cell)), _number(cell, cell["tolerance"]),
            Text(verdict or _NONE, style="bold red" if cell["short"] else ""), _value(cell, "adaptive"),
        )  # fmt: skip
    return table


def _scale(result: Record) -> str:
    trained = "" if result["training_pictures"] is None else f" on {result['training_pictures']:,} pictures"
    searched = "" if result["gallery"] is None else f" in a gallery of {result['gallery']:,}"
    epochs = {model.get("epochs", result["epochs"]) for model in result["models"]} or {result["epochs"]}
    long = f"{epochs.pop():g} epoch(s)" if len(epochs) == 1 else "as long as told below"
    return (
        f"Scale {result['scale']}: a model for each seed ({', '.join(map(str, result['seeds']))}), trained for "
        f"{long}{trained}; {result['attacked']:,} attacked pictures for each{searched}{_size(result)}."
    )


def _size(result: Record) -> str:
    side = result.get("size")
    return "" if side is None else f"; all pictures at {side} x {side} pixels"


def _notes(result: Record) -> str:
    """What was done otherwise than asked; results of earlier versions say nothing of it."""
    return "\n".join(f"- {note}" for note in result.get("notes") or ())


def reproduction_headline(result: Record) -> str:
    """What a reader must know before the figures: unfinished, not to be compared, or how many are as published."""
    units, verdicts = result["units"], result["verdicts"]
    if not result["complete"]:
        return f"Unfinished: {units['done']} of {units['planned']} units."
    if not result["judged"]:
        if result["scale"] == "smoke":
            return "A smoke test: too little training and too few pictures to be compared with the paper."
        return "Not judged: data or training are not the paper's. Its figures stand beside ours, without a verdict."
    if not any(verdicts.values()):
        return "The paper prints no figures of this; nothing is judged."
    told = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    return f"Of {sum(verdicts.values())} attacked cells with a published figure: {told}."


def _state(result: Record) -> str:
    headline = f"**{reproduction_headline(result)}**"
    if not (result["complete"] and result["judged"] and any(result["verdicts"].values())):
        return headline
    untelling = result.get("untelling")
    vague = f" Of the same, {untelling} would be so without any attack: the paper's figure is near our clean one."
    return f"{headline}{_short(result)}{vague if untelling else ''}{_order(result)}"


def _short(result: Record) -> str:
    """What stronger means where models are defended; results of earlier versions do not say."""
    if not any(cell.get("defended") for cell in result["cells"]):
        return ""
    count = result["short"]["defense"]
    return f" On a defended model *stronger* is the defense falling short of the paper's: {count} of the cells do."


def _order(result: Record) -> str:
    """In how many pairs of cells the paper's order holds; results of earlier versions compared other pairs, or none."""
    order = result.get("order") or {}
    if not order.get("pairs") or "unattacked" not in order:
        return ""
    return (
        f" Of {order['pairs']:,} pairs of cells of one ε, metric and direction that the paper has further apart than our "
        f"intervals, {order['same']:,} stand in the paper's order; {order['unattacked']:,} would without any attack."
    )


def _quality(result: Record) -> str:
    recalls = _recalls(result)
    several = len(recalls) > 1
    models = ", ".join(
        f"{value_text(model['recall@1'])} ({model['name'] + ', ' if several else ''}seed {model['seed']})"
        for model in result["models"]
    )
    known = {name: recall for name, recall in recalls.items() if recall is not None}
    paper = ", ".join(f"{f'{name} ' if several else ''}{recall:g} %" for name, recall in known.items())
    return f"Recall@1 of the clean models: {models}{f'; paper {paper}' if paper else ''}." if models else ""


def _training(result: Record) -> str:
    """How long each model was trained; results of earlier versions, and of models whose history is gone, do not say."""
    told = ", ".join(
        f"{model['epochs']:g} epoch(s) of {model['epoch_seconds']:.0f} s ({model['name']}, seed {model['seed']})"
        for model in result["models"]
        if "epoch_seconds" in model
    )
    return f"Training: {told}." if told else ""


def _recalls(result: Record) -> Mapping[str, float | None]:
    """The paper's, by model; results of earlier versions have one model without a name."""
    recall = result["recall"]
    return recall if isinstance(recall, Mapping) else {"": recall}


def _scores(result: Record) -> str:
    """The robustness scores of the models that have them."""
    if not result.get("robustness"):
        return ""
    header = ("model", "ε", "ERS [95 %]", "ERS-legacy [95 %]", "paper")
    lines = [header, ("---",) * len(header)]
    for row in result["robustness"]:
        told = [f"{value_text(row[name])} {interval_text(row[name], digits=1)}".strip() for name in ("ers", "ers-legacy")]
        lines.append((row["model"], eps_decimal(row["eps"]), *told, number(row["paper"], digits=1)))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nThe paper's score is to be compared with ERS-legacy: both have two of the ten attacks as published."


def _columns(cells: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Every cell's texts by column, without columns in which nothing stands: they would only push others off the page."""
    columns = dict(zip(_HEADER, zip(*map(_markdown_row, cells), strict=True), strict=False))
    return {name: texts for name, texts in columns.items() if any(text != _NONE for text in texts)}


def _markdown_table(columns: Mapping[str, Sequence[str]]) -> str:
    lines = [tuple(columns), ("---",) * len(columns), *zip(*columns.values(), strict=True)] if columns else []
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _legend(result: Record, columns: Mapping[str, Sequence[str]]) -> str:
    told = [sentence for column, sentence in _LEGEND if column in columns]
    told += [_PRESERVING] if any(cell.get("metric") == "kept_rank" for cell in result["cells"]) else []
    return "\n".join(told)


def _markdown_row(cell: Record) -> tuple[str, ...]:
    digits = _digits(cell)
    difference = cell["difference"]
    return (
        cell["column"], eps_decimal(cell["eps"]), _number(cell, cell["paper"]), _with_interval(cell, "ours"),
        _NONE if difference is None else f"{difference:+.{digits}f}", _number(cell, cell["tolerance"]),
        cell["verdict"] or _NONE, _number(cell, cell["seed_deviation"]), _value(cell, "eight_bit"),
        _with_interval(cell, "adaptive"), _gain(cell["gain"]), _value(cell, "attainable"),
        number(_cost(cell)["forwards"]), number(_cost(cell)["seconds"], digits=3),
    )  # fmt: skip


def _cost(cell: Record) -> Record:
    """Of the paper's attack; of the clean system, where nobody attacked."""
    cost: Record = cell["cost"].get("paper") or cell["cost"]["clean"]
    return cost


def _gain(gain: Record | None) -> str:
    return _NONE if gain is None else f"{gain['loss']['value']:+.2g}, {100 * gain['at_least']:.0f} %"


def _digits(cell: Record) -> int:
    return 1 if cell["unit"] == "%" else 3


def _number(cell: Record, value: float | None) -> str:
    return number(value, digits=_digits(cell))


def _value(cell: Record, name: str) -> str:
    return _number(cell, None if cell[name] is None else cell[name]["value"])


def _with_interval(cell: Record, name: str) -> str:
    return f"{_value(cell, name)} {interval_text(cell[name], digits=_digits(cell))}".strip()


def _provenance(result: Record) -> str:
    environment = result["environment"]
    kept = ("created", "commit", "resumed_at", "embattle", "torch", "python", "cpu", "cores", "threads", "platform")
    told = [f"{name} {_listed(environment[name])}" for name in kept if environment.get(name) is not None]
    return f"Made by `{environment['command']}`: {', '.join(told)}."


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _csv(result: Record) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = list(_flat(result["cells"]))
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()


def _flat(cells: Sequence[Record]) -> Iterator[dict[str, Any]]:
    plain = ("column", "metric", "unit", "eps", "paper", "difference", "tolerance", "verdict", "seed_deviation")
    for cell in cells:
        row = {name: cell[name] for name in plain}
        for name in ("ours", "eight_bit", "adaptive", "attainable"):
            figure = cell[name] or {"value": None, "n": None, "ci": None}
            low, high = figure["ci"] or (None, None)
            row |= {name: figure["value"], f"{name}_n": figure["n"], f"{name}_low": low, f"{name}_high": high}
        gain = cell["gain"]
        for name in ("paper", "adaptive"):
            cost = cell["cost"].get(name) or {"forwards": None, "seconds": None}
            row |= {f"{name}_forwards": cost["forwards"], f"{name}_seconds": cost["seconds"]}
        row |= {"gain": gain and gain["loss"]["value"], "gain_at_least": gain and gain["at_least"]}
        yield row
