from __future__ import annotations

import math
import os
import subprocess
import sys
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from embattle.errors import InputError
from embattle.records import bootstrap_mean, mean_figure, mean_figures, rate_figure, wilson
from embattle.records.intervals import NORMAL_FROM, RESAMPLES, bootstrap_means


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_scipy(trial: tuple[int, int], confidence: float) -> None:
    successes, n = trial
    oracle = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_wilson_ends_are_exact() -> None:
    assert wilson(0, 29)[0] == 0.0
    assert wilson(29, 29)[1] == 1.0


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 95)])
def test_wilson_refuses_the_impossible(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(InputError):
        wilson(successes, n, confidence)


def test_bootstrap_equals_a_slow_one() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    rng = np.random.default_rng(11)
    means = [values[rng.integers(0, 40, size=40)].mean() for _ in range(20_000)]
    oracle = np.quantile(means, [0.025, 0.975])
    # Two independent Monte Carlo runs: their quantiles differ by a few percent of the standard error.
    tolerance = 0.15 * values.std() / math.sqrt(40)
    assert bootstrap_mean(values, seed=5) == pytest.approx(oracle, abs=tolerance)


def test_bootstrap_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    rounds = 400
    covered = 0
    for trial in range(rounds):
        low, high = bootstrap_mean(rng.exponential(2.0, size=80), seed=trial, resamples=500, confidence=0.9)
        covered += low <= 2.0 <= high
    # Skewed values at n=80 cost the percentile interval one or two points; 3.5 standard errors on either side.
    assert 0.83 <= covered / rounds <= 0.95


def test_bootstrap_is_determined_by_its_seed_alone() -> None:
    values = np.random.default_rng(1).normal(size=300)
    first = bootstrap_mean(values, seed=4)
    np.random.default_rng(9).normal(size=10)
    assert bootstrap_mean(list(values), seed=4) == first
    assert bootstrap_mean(values, seed=5) != first


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_several_columns_equal_one_at_a_time(columns: int) -> None:
    table = np.random.default_rng(2).normal(size=(50, columns)) * [10.0**power for power in range(columns)] + 7
    together = bootstrap_means(table, seed=0)
    for column in range(columns):
        assert tuple(together[column]) == pytest.approx(bootstrap_mean(table[:, column], seed=0), rel=1e-9)


def test_the_number_of_threads_changes_no_digit() -> None:
    code = (
        "import numpy as np; from embattle.records.intervals import bootstrap_means;"
        "print(bootstrap_means(np.random.default_rng(0).normal(size=(3000, 6)), seed=0, resamples=200).tobytes().hex())"
    )
    outputs = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_kept_and_fresh_draws_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=100)
    kept = bootstrap_mean(values, seed=0)
    monkeypatch.setattr("embattle.records.intervals._CACHED_COUNTS", 0)
    assert bootstrap_mean(values, seed=0) == kept


@given(st.floats(-1e12, 1e12), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_equal_values_give_an_interval_of_width_zero(value: float, n: int) -> None:
    low, high = bootstrap_mean([value] * n, seed=0, resamples=100)
    assert low == high == pytest.approx(value, rel=1e-12)


def test_bootstrap_memory_does_not_grow_with_the_resamples() -> None:
    values = np.random.default_rng(0).normal(size=40_000)
    tracemalloc.start()
    bootstrap_mean(values, seed=0, resamples=1000)  # a table of all indices would take 320 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("values", [[], [[1.0], [2.0]], [1.0, math.nan], [math.inf]])
def test_bootstrap_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(InputError):
        bootstrap_mean(values, seed=0)


@pytest.mark.parametrize("settings_", [{"resamples": 0}, {"confidence": 0.0}, {"confidence": 1.0}])
def test_bootstrap_refuses_settings_out_of_range(settings_: dict[str, float]) -> None:
    with pytest.raises(InputError):
        bootstrap_mean([1.0, 2.0], seed=0, **settings_)  # type: ignore[arg-type]


def test_undefined_and_failed_samples_are_counted_and_never_averaged_in() -> None:
    figure = mean_figure([1.0, None, 3.0, math.nan, 5.0], unit="%", higher_is_better=True, failed=4)
    assert (figure.value, figure.n, figure.undefined, figure.failed) == (3.0, 3, 2, 4)
    assert figure.ci == bootstrap_mean([1.0, 3.0, 5.0], seed=0)
    assert str(RESAMPLES) in figure.method


def test_figures_with_different_gaps_keep_their_own_samples() -> None:
    columns = {"a": [1.0, 2.0, None, 4.0], "b": [10.0, 20.0, 30.0, 40.0], "c": [5.0, 6.0, 7.0, 8.0]}
    described = {"a": ("%", True), "b": ("", False), "c": ("px", False)}
    for name, figure in mean_figures(columns, described).items():
        unit, better = described[name]
        alone = mean_figure(columns[name], unit=unit, higher_is_better=better)
        assert (figure.value, figure.unit, figure.n) == (alone.value, alone.unit, alone.n)
        assert figure.ci == pytest.approx(alone.ci, rel=1e-9)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([None, None], 0), ([2.5], 1)])
def test_too_few_samples_give_no_interval(values: list[float | None], n: int) -> None:
    figure = mean_figure(values, unit="%", higher_is_better=True)
    assert (figure.n, figure.ci) == (n, None)
    assert figure.value == (2.5 if n else None)


def test_large_samples_use_the_normal_interval_and_say_so() -> None:
    values = np.random.default_rng(0).exponential(size=NORMAL_FROM)
    figure = mean_figure(values, unit="", higher_is_better=False)
    assert figure.method == "mean; normal 95 %"
    half = NormalDist().inv_cdf(0.975) * values.std(ddof=1) / math.sqrt(NORMAL_FROM)
    assert figure.ci == pytest.approx((values.mean() - half, values.mean() + half))
    # Next to the threshold both ways agree to a few percent of the width.
    assert figure.ci == pytest.approx(bootstrap_mean(values, seed=0), abs=0.1 * half)


def test_infinite_values_are_refused() -> None:
    with pytest.raises(InputError, match="infinite"):
        mean_figure([1.0, -math.inf], unit="", higher_is_better=True)


def test_rate_figure_counts_and_uses_wilson() -> None:
    figure = rate_figure([True] * 61 + [False] * 3 + [None] * 5, higher_is_better=False, failed=2)
    assert (figure.value, figure.unit, figure.n, figure.undefined, figure.failed) == (61 / 64, "share", 64, 5, 2)
    assert figure.ci == wilson(61, 64)
    empty = rate_figure([None, None], higher_is_better=False)
    assert (empty.value, empty.ci, empty.undefined) == (None, None, 2)
