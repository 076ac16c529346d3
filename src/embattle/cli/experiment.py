"""What `embattle show` says of a published experiment: what is trained, attacked and measured, and how long it takes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embattle.report.figures import eps_decimal

if TYPE_CHECKING:
    from embattle.protocols import Column, Protocol, Scale
    from embattle.protocols.protocol import Model
    from embattle.registry import Entry

_WIDEST, _INDENT = 80, 10


def experiment(entry: Entry) -> str:
    """The description of the protocol behind a registry entry, in 80 columns."""
    protocol: Protocol = entry.build()
    lines = [
        protocol.title, entry.summary, "",
        *_fact("trained", f"for each seed, on the training pictures of {protocol.data}"),
        *_models(protocol),
        *_fact("attacked", f"test pictures of {protocol.data}, which are also the gallery, drawn for each seed"),
        *_fact("attack", _attacks(protocol)),
        *_fact("columns", _columns(protocol)),
        *_fact("ε", ", ".join(map(eps_decimal, protocol.eps)) + " in pixel units of [0, 1], and the clean system"),
        *_fact("figures", f"{len(protocol.published)} of the paper to compare with"),
        "", "Scales", *_scales(protocol),
        "", "Otherwise than in the paper",
        *_listed(protocol.differs), *_original(protocol),
    ]  # fmt: skip
    return "\n".join(lines)


def _listed(sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from _wrapped(f"  - {sentence}", "    ")


def _original(protocol: Protocol) -> Iterator[str]:
    """What runs instead where the paper's own data is at hand."""
    if (original := protocol.original) is None:
        return
    yield from ("", f"Instead, where {original.data} lies in the data root", *_models(original), *_scales(original))
    yield from _listed([sentence for sentence in original.differs if sentence not in protocol.differs])


def _models(protocol: Protocol) -> Iterator[str]:
    """Every model with what departs from the default training."""
    for name, model in protocol.models.items():
        told = _model(name, model, several=len(protocol.models) > 1)
        yield from _wrapped(" " * _INDENT + told, " " * (_INDENT + 2))


def _model(name: str, model: Model, *, several: bool) -> str:
    told = [f"from {model.start}"] if model.start else []
    told += [f"{key.replace('_', ' ')} {_plain(value)}" for key, value in model.training.items()]
    told += ["another seed"] if model.shift else []
    told += [] if model.recall is None else [f"the paper's Recall@1 is {model.recall:g} %"]
    called = name if not several or name == model.network else f"{name} ({model.network})"
    return f"{called}{': ' if told else ''}{'; '.join(told)}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _attacks(protocol: Protocol) -> str:
    adaptive = ", and beside it Auto-PGD with equally many forwards" if protocol.adaptive else ""
    return f"the paper's step rule{adaptive}"


def _columns(protocol: Protocol) -> str:
    """What is measured of which attacks; metrics of the same attacks share one list of them."""
    measured: dict[str, list[Column]] = {}
    pairs: dict[str, None] = {}
    for column in protocol.columns:
        what = "mean rank in %" if column.metric == "rank" else f"mean {column.metric.replace('_', ' ')}"
        measured.setdefault(what, []).append(column)
        alone = replace(column, crafted_on="", judged_on="", xi=None)
        pairs[replace(column, xi=None).attack.removeprefix(alone.attack).strip()] = None
    shared: dict[str, list[str]] = {}
    for what, columns in measured.items():
        shared.setdefault(_folded(columns), []).append(what)
    told = "; ".join(f"{' and '.join(metrics)} of {attacks}" for attacks, metrics in shared.items())
    return told if set(pairs) == {""} else f"{told}; on each of: {', '.join(pair or protocol.first for pair in pairs)}"


def _folded(columns: Sequence[Column]) -> str:
    """Names of attacks: families with the same widths and ξ are told once, with these behind them."""
    variants: dict[str, dict[tuple[str, str], None]] = {}
    for column in columns:
        family, dot, width = column.scenario.partition(".")
        variants.setdefault(family, {})[dot + width, "" if column.xi is None else f"{column.xi:g}"] = None
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for family, of in variants.items():
        alike.setdefault(tuple(of), []).append(family)
    return ", ".join(_alike(families, of) for of, families in alike.items())


def _alike(families: Sequence[str], variants: Sequence[tuple[str, str]]) -> str:
    widths, balances = ([*dict.fromkeys(part)] for part in zip(*variants, strict=True))
    if len(variants) == 1 or len(variants) != len(widths) * len(balances):
        names = (f"{family}{width}{balance and f' ξ {balance}'}" for family in families for width, balance in variants)
        return ", ".join(names)
    told = [", ".join(widths)] if len(widths) > 1 else []
    told += [f"ξ {', '.join(balances)}"] if balances != [""] else []
    names = (family if len(widths) > 1 else f"{family}{widths[0]}" for family in families)
    return f"{' and '.join(names)} ({'each ' if len(families) > 1 else ''}with {' and '.join(told)})"


def _scales(protocol: Protocol) -> Iterator[str]:
    for name, scale in protocol.scales.items():
        yield from _fact(f"  {name}", _scale(scale))


def _scale(scale: Scale) -> str:
    epochs = "1 epoch" if scale.epochs == 1 else f"{scale.epochs} epochs"
    trained = "" if scale.training_pictures is None else f" on {scale.training_pictures:,} pictures"
    gallery = "" if scale.gallery is None else f" in a gallery of {scale.gallery:,}"
    seeds = f"{'seed' if len(scale.seeds) == 1 else 'seeds'} {', '.join(map(str, scale.seeds))}"
    judged = "" if scale.judged else "not judged"
    side = "" if scale.size is None else f" at {scale.size} x {scale.size} pixels"
    targets = "" if scale.targets == 1 else f"{scale.targets:,} targets a seed"
    told = (f"{epochs}{trained}{side}", f"{scale.attacked:,} pictures a seed{gallery}", targets, seeds, scale.takes, judged)
    return "; ".join(part for part in told if part)


def _fact(name: str, text: str) -> Sequence[str]:
    return _wrapped(f"{name:<{_INDENT}}{text}", " " * _INDENT)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDEST, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
