"""Drift against slow oracles, scipy, and its own promise of few false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from rankstream.contracts import manifest
from rankstream.errors import InvalidArtifact
from rankstream.monitoring.drift import ALPHA, drift, ks, psi
from rankstream.monitoring.histogram import (
    Histogram,
    bin_of,
    decode_histogram,
    encode_histogram,
    reference_histogram,
)

VALUES = npst.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.floats(-4, 4, width=32) | st.just(float("nan")) | st.just(float("inf")),
)


def naive_bin(edges: list[float], value: float) -> int:
    if math.isnan(value):
        return len(edges) + 1
    for number, edge in enumerate(edges):
        if value < edge:
            return number
    return len(edges)


def naive_psi(reference: list[int], current: list[int]) -> float:
    pairs = [(a, b) for a, b in zip(reference, current, strict=True) if a or b]
    n = sum(a for a, _ in pairs) + 0.5 * len(pairs)
    m = sum(b for _, b in pairs) + 0.5 * len(pairs)
    total = 0.0
    for a, b in pairs:
        p, q = (a + 0.5) / n, (b + 0.5) / m
        total += (q - p) * math.log(q / p)
    return total


def naive_ks(one: np.ndarray, two: np.ndarray, points: np.ndarray) -> float:
    gaps = [abs((one < x).mean() - (two < x).mean()) for x in points]
    return float(max(gaps))


@given(reference=VALUES, values=VALUES)
def test_every_value_is_in_the_bin_that_a_plain_loop_puts_it_in(
    reference: np.ndarray, values: np.ndarray
) -> None:
    edges = reference_histogram(reference, bins=5).edges

    bins = bin_of(edges, values)

    assert bins.tolist() == [naive_bin(edges.tolist(), float(value)) for value in values]


@given(reference=VALUES, parts=st.lists(VALUES, min_size=3, max_size=3))
def test_merging_in_any_grouping_equals_counting_at_once(
    reference: np.ndarray, parts: list[np.ndarray]
) -> None:
    empty = reference_histogram(reference, bins=5).empty()
    one, two, three = (empty.add(part) for part in parts)

    left = one.merge(two).merge(three)
    right = three.merge(one.merge(two))

    whole = empty.add(np.concatenate(parts))
    assert left.counts.tolist() == right.counts.tolist() == whole.counts.tolist()
    assert whole.n == sum(map(len, parts))


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=25).filter(
        lambda pairs: any(a for a, _ in pairs) and any(b for _, b in pairs)
    )
)
def test_psi_equals_the_sum_written_out(pairs: list[tuple[int, int]]) -> None:
    reference = [a for a, _ in pairs]
    current = [b for _, b in pairs]

    value, bins = psi(np.array(reference), np.array(current))

    assert value == pytest.approx(naive_psi(reference, current), abs=1e-12)
    assert bins == sum(1 for a, b in pairs if a or b)


def test_ks_of_bins_equals_scipy_on_the_bin_numbers_and_stays_below_that_of_raw_values() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=3000), rng.normal(0.2, 1.1, size=700)
    reference = reference_histogram(one, bins=50)
    current = reference.empty().add(two)

    measured = drift(reference, current)

    binned = stats.ks_2samp(
        bin_of(reference.edges, one), bin_of(reference.edges, two), method="asymp"
    )
    raw = stats.ks_2samp(one, two, method="asymp")
    assert measured.ks == pytest.approx(binned.statistic)
    assert measured.ks == pytest.approx(naive_ks(one, two, reference.edges))
    assert measured.ks <= raw.statistic
    # scipy's asymptotic p-value is that of the finite-n Kolmogorov distribution.
    assert measured.ks_p_value == pytest.approx(binned.pvalue, rel=0.2)


def test_ks_ignores_missing_values_and_psi_does_not() -> None:
    rng = np.random.default_rng(2)
    sample = rng.normal(size=2000)
    reference = reference_histogram(sample)
    half_missing = np.where(np.arange(2000) % 2 == 0, np.nan, sample)

    measured = drift(reference, reference.empty().add(half_missing))

    assert measured.ks < 0.05
    assert measured.verdict() == "fail"


def test_a_counter_that_stops_being_zero_is_seen_although_most_quantiles_are_zero() -> None:
    rng = np.random.default_rng(3)
    reference = reference_histogram(rng.poisson(0.1, size=5000).astype(np.float32))
    current = reference.empty().add(rng.poisson(0.8, size=1000).astype(np.float32))

    measured = drift(reference, current)

    assert measured.psi_excess > 0.5
    assert measured.verdict() == "fail"


def test_a_value_out_of_the_range_of_the_reference_lies_outside() -> None:
    reference = reference_histogram(np.arange(100.0))

    current = reference.empty().add(np.array([-1.0, 0.0, 99.0, 100.0, np.inf, np.nan]))

    assert (current.outside, current.missing, current.n) == (3, 1, 6)
    assert reference.outside == 0


def test_a_large_sample_alone_does_not_make_a_small_shift_a_failure() -> None:
    rng = np.random.default_rng(4)
    reference = reference_histogram(rng.normal(size=100_000))

    measured = drift(reference, reference.empty().add(rng.normal(0.05, 1, size=100_000)))

    assert measured.psi_p_value < 1e-9
    assert measured.verdict() == "pass"


def test_a_large_psi_of_a_small_sample_is_not_a_failure() -> None:
    rng = np.random.default_rng(5)
    reference = reference_histogram(rng.normal(size=10_000), bins=50)

    measured = drift(reference, reference.empty().add(rng.normal(size=200)))

    assert measured.psi > 0.1
    assert measured.psi_null_mean == pytest.approx(0.25, abs=0.02)
    assert measured.verdict() == "pass"


def test_too_few_values_are_inconclusive_and_none_are_nan() -> None:
    reference = reference_histogram(np.arange(1000.0))

    few = drift(reference, reference.empty().add(np.full(199, 1e9)))
    none = drift(reference, reference.empty())

    assert few.verdict() == "inconclusive"
    assert none.verdict() == "inconclusive"
    assert math.isnan(none.psi)


def test_a_constant_feature_that_stays_constant_passes_and_one_that_moves_fails() -> None:
    reference = reference_histogram(np.zeros(1000))

    same = drift(reference, reference.empty().add(np.zeros(500)))
    moved = drift(reference, reference.empty().add(np.ones(500)))

    assert same.verdict() == "pass"
    assert moved.verdict() == "fail"


def test_a_reference_of_missing_values_only_still_tells_when_values_come() -> None:
    reference = reference_histogram(np.full(1000, np.nan))

    measured = drift(reference, reference.empty().add(np.ones(500)))

    assert measured.verdict() == "fail"


def test_a_histogram_survives_the_form_that_a_manifest_holds() -> None:
    reference = reference_histogram(np.array([1.0, 2.0, 2.0, np.inf]))
    stored = manifest.Histogram.model_validate_json(encode_histogram(reference).model_dump_json())

    again = decode_histogram(stored)

    assert again.edges.tolist() == reference.edges.tolist()
    assert again.counts.tolist() == reference.counts.tolist()


@pytest.mark.parametrize(
    ("edges", "counts", "words"),
    [
        ((2.0, 1.0), (0, 0, 0), "must ascend"),
        ((1.0, 1.0), (0, 0, 0), "must ascend"),
        ((1.0, 2.0), (0, 0, 0, 0), "needs 3 counts"),
        ((1.0, 2.0), (0, 0, -1), "needs 3 counts"),
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(
    edges: tuple[float, ...], counts: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InvalidArtifact, match=words):
        decode_histogram(manifest.Histogram(edges=edges, counts=counts))


def test_a_mass_has_a_bin_of_its_own_wherever_it_lies() -> None:
    values = np.concatenate([np.linspace(0, 1, 100), np.full(300, 2.0), np.linspace(3, 4, 100)])

    reference = reference_histogram(values, bins=10)

    assert reference.counts[bin_of(reference.edges, np.array([2.0]))[0]] == 300


def test_merging_histograms_with_other_edges_stops_the_process() -> None:
    with pytest.raises(AssertionError, match="equal edges"):
        reference_histogram(np.arange(5.0)).merge(reference_histogram(np.arange(6.0)))


def a_feature(rng: np.random.Generator, kind: int, size: int) -> np.ndarray:
    if kind % 3 == 0:
        return rng.normal(size=size)
    if kind % 3 == 1:
        return rng.lognormal(size=size)
    return rng.poisson(0.7, size=size).astype(np.float64)


def simulated_null(
    seed: int, windows: int, features: int, n: int, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """P-values and PSI over its null mean, shape (windows, features), with nothing drifting."""
    rng = np.random.default_rng(seed)
    p_values = np.empty((windows, features))
    relative = np.empty((windows, features))
    for feature in range(features):
        for window in range(windows):
            reference = reference_histogram(a_feature(rng, feature, n))
            measured = drift(reference, reference.empty().add(a_feature(rng, feature, m)))
            p_values[window, feature] = measured.psi_p_value
            relative[window, feature] = measured.psi / measured.psi_null_mean
    return p_values, relative


@pytest.mark.parametrize(("n", "m"), [(2000, 300), (2000, 2000), (500, 2000)])
def test_without_drift_psi_has_its_null_mean_and_its_p_value_keeps_its_promise(
    n: int, m: int
) -> None:
    p_values, relative = simulated_null(seed=n + m, windows=150, features=6, n=n, m=m)

    rate = float((p_values <= 0.01).mean())

    assert relative.mean() == pytest.approx(1.0, abs=0.15)
    # 900 tests at .01: the binomial 99.9 % limit is .022.
    assert rate <= 0.022


@pytest.mark.slow
def test_sixty_features_without_drift_rarely_raise_an_alarm_where_naive_tests_do() -> None:
    p_values, _ = simulated_null(seed=11, windows=100, features=60, n=2000, m=500)

    naive = float((p_values <= 0.05).any(axis=1).mean())
    ours = float((p_values <= ALPHA / 60).any(axis=1).mean())

    assert naive > 0.6
    assert ours <= 0.03


def test_ks_of_an_empty_side_is_zero() -> None:
    zero, one = np.zeros(4, dtype=np.int64), np.ones(4, dtype=np.int64)

    assert ks(zero, one) == 0.0


def test_empty_keeps_the_edges() -> None:
    histogram = Histogram(np.array([1.0]), np.array([0, 3, 0]))

    assert histogram.empty().n == 0
    assert histogram.empty().edges.tolist() == [1.0]
