"""The committed benchmark results as tables: what is compared, the medians, the ratio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "results"


def table(name: str) -> Iterator[str]:
    """Lines of Markdown for results/bench-NAME.json, with its provenance."""
    result = json.loads((RESULTS / f"bench-{name}.json").read_text(encoding="utf-8"))
    yield from _TABLES[name](result)
    made, settings = result["environment"], result["settings"]
    where = f"{made['cpu']}, {made['cores']} cores, {made['threads']} threads, torch {made['torch']}"
    # What is no timing has no rounds; how many pictures it is of says more.
    rounds = f"medians of {settings['repeats']} alternations" if settings["repeats"] > 1 else ""
    pictures = f"{settings['pictures']:,} pictures" if "pictures" in settings else ""
    told = ", ".join(filter(None, (where, f"seed {settings['seed']}", pictures, rounds)))
    yield f"\n`results/bench-{name}.json`, {made['created'][:10]}, commit `{made['commit']}`, {told}."


def _loop(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            network, found["steps"], _ms(found["median_seconds"]["by hand"]), _ms(found["median_seconds"]["loop"]),
            found["ratio"], found["ratio_keeping_the_best"],
        )
        for network, found in result["networks"].items()
    ]  # fmt: skip
    yield from _rows(
        ["network", "steps", "by hand", "our loop", "ours / by hand", "keeping the best iterate / by hand"], rows
    )


def _peers(result: dict[str, Any]) -> Iterator[str]:
    versions = result["versions"]
    sides = ["embattle", "embattle bfloat16", *versions]
    rows = [
        (
            label,
            *(
                f"{_ms(found['median_seconds'][side])} ({found['found'][side]['forwards_of_a_sample']:.0f})"
                for side in sides
            ),
            found["float32_ratio_over_the_fastest_peer"], _per_forward(found),
            found["bfloat16_times_as_fast_as_the_fastest_peer"],
        )
        for label, found in result["networks"].items()
    ]  # fmt: skip
    headings = [side if side not in versions else f"{side} {versions[side]}" for side in sides]
    ratios = ["float32: ours / fastest peer", "the same per forward", "bfloat16: times as fast as the fastest peer"]
    yield from _rows(["network", *headings, *ratios], rows)


def _per_forward(found: dict[str, Any]) -> str:
    """The float32 ratio were each side charged for the forwards it makes."""
    theirs, ours = (found["found"][side]["forwards_of_a_sample"] for side in (found["fastest_peer"], "embattle"))
    return f"{found['float32_ratio_over_the_fastest_peer'] * theirs / ours:.3f}"


def _query_rank(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            shape["similarity"], f"{shape['gallery']:,}", shape["candidates"], shape["dimension"],
            _ms(shape["objective_median_seconds"]["one by one"]), _ms(shape["objective_median_seconds"]["ours"]),
            f"{shape['objective_ratio']:.1f}", f"{shape['objective_ratio_of_bare_products']:.1f}",
            f"{shape['attack_ratio']:.1f}",
        )
        for shape in result["shapes"]
    ]  # fmt: skip
    headings = [
        "similarity",
        "gallery",
        "candidates",
        "numbers",
        "one by one",
        "ours",
        "times as fast",
        "at most",
        "whole attack",
    ]
    yield from _rows(headings, rows)


def _candidate_rank(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        (f"{int(size):,}", _ms(seconds), _ms(result["step_median_seconds"][size]))
        for size, seconds in result["attack_median_seconds"].items()
    ]
    yield from _rows(["gallery", f"whole attack of {result['settings']['steps']} steps", "one step"], rows)


def _ranks(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            found["dimension"], f"{found['median_seconds']['ranks']:.2f} s", f"{found['median_seconds']['product']:.2f} s",
            f"{found['rate_of_the_product']:.2f}", f"{found['peak_megabytes_above_the_embeddings']} MB",
        )
        for found in result["lengths"]
    ]  # fmt: skip
    yield from _rows(["numbers of an embedding", "exact ranks", "bare product", "rate of the product", "peak memory"], rows)


def _cli(result: dict[str, Any]) -> Iterator[str]:
    labels = {"--help": "embattle --help", "report": f"embattle report, {result['findings_written']:,} findings"}
    rows = [(f"`{labels.get(verb, verb)}`", f"{seconds:.2f} s") for verb, seconds in result["median_seconds"].items()]
    yield from _rows(["command", "from start to end"], rows)


def _harden(result: dict[str, Any]) -> Iterator[str]:
    steps = result["settings"]["steps"]
    limits = ("over_the_limit", "over_the_limit_of_clean_pictures", "over_the_limit_of_its_own_pictures")
    rows = [
        (
            f"`{name}`", found["attacked_pictures"], _ms(found["median_seconds"]["defense"]), f"{found['ratio']:.2f}",
            f"{found['limit']:.2f}", *(f"{found[limit]:.3f}" for limit in limits),
        )
        for name, found in result["defenses"].items()
    ]  # fmt: skip
    headings = [
        "defense", "pictures attacked", "a step", "of a plain step", f"limit of {steps} inner steps", "over the limit",
        "over a limit on clean pictures", "over the limit, trained on as many pictures",
    ]  # fmt: skip
    yield from _rows(headings, rows)


def _freed_memory(result: dict[str, Any]) -> Iterator[str]:
    seconds, peaks = result["median_seconds"], result["median_peak_megabytes"]
    rows = [(side, _ms(seconds[side]), f"{peaks[side]:,} MB") for side in seconds]
    yield from _rows(["freed memory", f"a step of `{result['defense']}`", "most memory held"], rows)
    yield f"\nA step with memory kept takes {result['ratio']:.2f} of one with memory given back."


def _gradient_checks(result: dict[str, Any]) -> Iterator[str]:
    models = result["models"]
    names = [check["check"] for check in next(iter(models.values()))]
    rows = [(f"`{model}`", *(check["status"] for check in checks)) for model, checks in models.items()]
    yield from _rows(["defense", *names], rows)
    for model, checks in models.items():
        for check in checks:
            if check["status"] != "ok":
                yield f"\n`{model}`, {check['check']}: {check['status']}. {check['finding']}."


def _divergence(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        (f"`{name}`", found["stopped"], "", "") if "stopped" in found else (
            f"`{name}`", ", ".join(f"{loss:.3f}" for loss in found["loss"]),
            f"{found['recall_at_1']:.3f} [{found['interval'][0]:.3f}, {found['interval'][1]:.3f}]",
            f"{found['spread']:.4f}",
        )
        for name, found in result["defenses"].items()
    ]  # fmt: skip
    headings = [
        "defense", f"loss by epoch (margin {result['margin']:g})", "Recall@1, clean", "distance between classes, clean"
    ]  # fmt: skip
    yield from _rows(headings, rows)


def _rows(headings: list[str], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}"
    yield from (f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"


_TABLES = {
    "loop": _loop, "peers": _peers, "query-rank": _query_rank, "candidate-rank": _candidate_rank, "ranks": _ranks,
    "cli": _cli, "harden": _harden, "divergence": _divergence, "freed-memory": _freed_memory,
    "gradient-checks": _gradient_checks,
}  # fmt: skip
