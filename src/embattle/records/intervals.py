"""Confidence intervals of rates (Wilson) and means (percentile bootstrap), and the figures made from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from embattle.errors import InputError
from embattle.records.figure import Figure

Floats = NDArray[np.float64]
Counts = NDArray[np.uint8]

_DRAWS_AT_ONCE = 250_000  # indices drawn in one go: 2 MB, which stays in the processor's cache
_CACHED_COUNTS = 32_000_000  # bytes; larger tables of counts are drawn again for every call
RESAMPLES = 2000
# From here on the Monte Carlo error of 2000 resamples (3 % of the standard error at either end) exceeds what they could
# correct (skewness / sqrt(n) / 2), so figures use the normal interval, which costs nothing.
NORMAL_FROM = 5000


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share (E. B. Wilson, 1927), without continuity correction.

    Args:
        successes: number of successes, 0 to `n`.
        n: number of trials, 1 or more.
        confidence: coverage, between 0 and 1.

    Returns:
        Lower and upper end, both in [0, 1].

    Raises:
        InputError: `n` below 1, `successes` outside 0 to `n`, `confidence` outside (0, 1).

    >>> low, high = wilson(61, 64)
    >>> print(f"{low:.3f} {high:.3f}")
    0.871 0.984
    """
    _check_confidence(confidence)
    if n < 1:
        raise InputError(f"an interval over {n} trials: at least 1 is needed; use ci=None for no trials.")
    if not 0 <= successes <= n:
        raise InputError(f"{successes} successes in {n} trials: allowed are 0 to {n}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The closed ends are exact; rounding would leave 1e-19 or 1 - 1e-16 there.
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + spread) / scale)
    return low, high


def bootstrap_mean(
    values: NDArray[np.floating] | Sequence[float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (B. Efron, 1979).

    Args:
        values: (n,) finite numbers, n >= 1.
        seed: the same seed, values and resamples give the same interval.
        resamples: number of bootstrap samples, 1 or more.
        confidence: coverage, between 0 and 1.

    Returns:
        Lower and upper end, in the unit of `values`.

    Raises:
        InputError: no values, values that are not finite, or settings out of range.

    >>> bootstrap_mean([4.0, 4.0, 4.0], seed=0)
    (4.0, 4.0)
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(f"bootstrap over an array of shape {column.shape}: allowed is one axis, (n,).")
    low, high = bootstrap_means(column[:, None], seed=seed, resamples=resamples, confidence=confidence)[0]
    return float(low), float(high)


def bootstrap_means(values: Floats, *, seed: int, resamples: int = RESAMPLES, confidence: float = 0.95) -> Floats:
    """Percentile bootstrap intervals of several means over the same samples; the resamples are drawn once for all.

    Args:
        values: (n, k) finite numbers, n >= 1; one column per quantity.
        seed: the same seed, n and resamples draw the same samples.
        resamples: number of bootstrap samples, 1 or more.
        confidence: coverage, between 0 and 1.

    Returns:
        (k, 2) lower and upper ends.

    Raises:
        InputError: no values, values that are not finite, or settings out of range.
    """
    _check_confidence(confidence)
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1:
        raise InputError(f"bootstrap over an array of shape {table.shape}: at least one value is needed.")
    if resamples < 1:
        raise InputError(f"bootstrap with {resamples} resamples: at least 1 is needed; 2000 is usual.")
    if not np.isfinite(table).all():
        raise InputError("bootstrap over values that are not finite: leave them out and count them as undefined.")
    # Centred, so that equal values give an interval of width exactly 0 and large offsets cost no digits.
    centre = table.mean(axis=0)
    means = np.empty((resamples, table.shape[1]))
    deviations, done, n = np.ascontiguousarray((table - centre).T), 0, table.shape[0]
    for counts in _drawn(seed, n, resamples):
        # Not a matrix product: its last digits would depend on the number of threads.
        means[done : done + len(counts)] = np.einsum("rn,kn->rk", counts.astype(np.float64), deviations)
        done += len(counts)
    tail = (1 - confidence) / 2
    ends: Floats = np.quantile(means / n, [tail, 1 - tail], axis=0).T + centre[:, None]
    return ends


def _drawn(seed: int, n: int, resamples: int) -> Iterable[Counts]:
    """How often each of `n` values enters a resample: (rows, n) chunks, `resamples` rows in all."""
    if n * resamples <= _CACHED_COUNTS:
        return _kept(seed, n, resamples)
    return _draw(seed, n, resamples)


@lru_cache(maxsize=2)
def _kept(seed: int, n: int, resamples: int) -> tuple[Counts, ...]:
    # The points of a curve have equal sample counts, so one table serves them all.
    return tuple(_draw(seed, n, resamples))


def _draw(seed: int, n: int, resamples: int) -> Iterator[Counts]:
    """Chunk by chunk, so that memory does not grow with the number of resamples."""
    rng = np.random.default_rng(seed)
    height = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, height):
        rows = min(height, resamples - start)
        flat = rng.integers(0, n, size=(rows, n))
        flat += np.arange(rows)[:, None] * n
        counts = np.bincount(flat.ravel(), minlength=rows * n)
        # A value enters a resample about once; more than 255 times does not happen (p < 1e-500).
        yield counts.astype(np.uint8).reshape(rows, n)


def mean_figure(
    values: Sequence[float | None] | Floats, *, unit: str, higher_is_better: bool, seed: int = 0, failed: int = 0
) -> Figure:
    """The mean of the defined values with its 95 % bootstrap interval.

    Args:
        values: one number per sample in `unit`; None or NaN means undefined and is counted, never averaged in.
        unit: the unit of the values.
        higher_is_better: whether a larger value is better for the owner of the system.
        seed: seed of the bootstrap.
        failed: samples whose computation broke down; they are not among `values`.

    Raises:
        InputError: an infinite value.

    >>> print(mean_figure([2.0, None, 4.0], unit="%", higher_is_better=True))
    3.0 % [2.0, 4.0] (n=2, 1 undefined)
    """
    plan = {"": (unit, higher_is_better)}
    return mean_figures({"": values}, plan, seed=seed, failed=failed)[""]


def mean_figures(
    columns: Mapping[str, Sequence[float | None] | Floats],
    described: Mapping[str, tuple[str, bool]],
    *,
    seed: int = 0,
    failed: int = 0,
) -> dict[str, Figure]:
    """`mean_figure` for several quantities measured on the same samples; complete columns share their resamples.

    Args:
        columns: values by name, one per sample.
        described: (unit, higher_is_better) by name.
        seed: seed of the bootstrap.
        failed: samples whose computation broke down; they are not among the values.

    Raises:
        InputError: an infinite value.
    """
    defined: dict[str, Floats] = {}
    undefined: dict[str, int] = {}
    for name, values in columns.items():
        table = np.asarray(values, dtype=np.float64)  # None becomes NaN
        if np.isinf(table).any():
            raise InputError(f"an infinite value among {name or 'the values'}: write None for an undefined sample.")
        defined[name] = table[~np.isnan(table)]
        undefined[name] = len(table) - len(defined[name])
    ends: dict[str, tuple[float, float]] = {}
    for n in sorted({len(values) for values in defined.values()} - {0, 1}):
        names = [name for name, values in defined.items() if len(values) == n]
        table = np.stack([defined[name] for name in names], axis=1)
        stacked = bootstrap_means(table, seed=seed) if n < NORMAL_FROM else _normal_means(table)
        ends.update({name: (float(low), float(high)) for name, (low, high) in zip(names, stacked, strict=True)})
    figures = {}
    for name, values in defined.items():
        unit, better = described[name]
        figures[name] = Figure(
            value=float(values.mean()) if len(values) else None, unit=unit, n=len(values),
            undefined=undefined[name], failed=failed, ci=ends.get(name), method=_mean_method(len(values), seed),
            higher_is_better=better,
        )  # fmt: skip
    return figures


def _mean_method(n: int, seed: int) -> str:
    if n < 2:
        return "mean; no interval from fewer than two samples"
    if n >= NORMAL_FROM:
        return "mean; normal 95 %"
    return f"mean; bootstrap percentile 95 %, {RESAMPLES} resamples, seed {seed}"


def _normal_means(table: Floats) -> Floats:
    """95 % intervals (k, 2) of the column means of an (n, k) table by the central limit theorem."""
    half = NormalDist().inv_cdf(0.975) * table.std(axis=0, ddof=1) / math.sqrt(len(table))
    ends: Floats = np.stack([table.mean(axis=0) - half, table.mean(axis=0) + half], axis=1)
    return ends


def rate_figure(flags: Sequence[bool | None], *, higher_is_better: bool, failed: int = 0) -> Figure:
    """The share of true flags with its 95 % Wilson interval.

    Args:
        flags: one per sample; None means undefined and is counted, never averaged in.
        higher_is_better: whether a larger share is better for the owner of the system.
        failed: samples whose computation broke down; they are not among `flags`.

    >>> print(rate_figure([True, True, False, None], higher_is_better=False))
    0.667 [0.208, 0.939] (n=3, 1 undefined)
    """
    defined = [bool(flag) for flag in flags if flag is not None]
    n, successes = len(defined), sum(defined)
    return Figure(
        value=successes / n if n else None, unit="share", n=n, undefined=len(flags) - n, failed=failed,
        ci=wilson(successes, n) if n else None, method="share; Wilson score 95 %", higher_is_better=higher_is_better,
    )  # fmt: skip


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence}: allowed is a share between 0 and 1; 0.95 is usual.")
