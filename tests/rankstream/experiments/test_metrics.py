import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.errors import InvalidExperiment
from rankstream.experiments import metrics
from rankstream.experiments.metrics import CATALOGUE, Metric, Moments, exact_dot, exact_sum, metric

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
PAIRS = st.lists(st.tuples(INT64, INT64), max_size=20)


@given(pairs=PAIRS)
def test_sums_of_products_are_exact_beyond_64_bits(pairs: list[tuple[int, int]]) -> None:
    a = np.array([u for u, _ in pairs], dtype=np.int64)
    b = np.array([v for _, v in pairs], dtype=np.int64)

    assert exact_dot(a, b) == sum(u * v for u, v in pairs)
    assert exact_sum(a) == sum(u for u, _ in pairs)


def test_sums_of_products_are_exact_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_CHUNK", 3)
    values = np.arange(2**61, 2**61 + 10, dtype=np.int64)

    assert exact_dot(values, values) == sum(int(v) ** 2 for v in values)


@given(
    pairs=st.lists(st.tuples(INT64, INT64), max_size=12),
    cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_moments_merge_to_the_same_bits_wherever_the_units_are_cut(
    pairs: list[tuple[int, int]], cuts: tuple[int, int]
) -> None:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    low, high = sorted(cuts)
    shards = [Moments.of(part[:, 0], part[:, 1]) for part in np.split(table, [low, high])]

    whole = Moments.of(table[:, 0], table[:, 1])

    assert (shards[0] + shards[1]) + shards[2] == whole
    assert shards[2] + (shards[1] + shards[0]) == whole


def test_a_mean_per_user_is_the_ratio_over_ones() -> None:
    y = np.array([3, 0, 5], dtype=np.int64)

    assert Moments.of(y) == Moments.of(y, np.ones(3, dtype=np.int64))


def test_the_catalogue_divides_as_the_field_does() -> None:
    assert CATALOGUE["ctr"] == Metric.ratio("ctr", "clicks", "impressions")
    assert CATALOGUE["cvr"].denominator == "clicks"
    assert CATALOGUE["ctcvr"].denominator == "impressions"
    assert CATALOGUE["clicks_per_user"].denominator is None
    # 2 units of currency on 500 impressions are 4 per mille.
    assert 2_000_000 / 500 * CATALOGUE["rpm"].scale == 4.0


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidExperiment, match=r"metric dwell is unknown.*Use one of ctr, cvr"):
        metric("dwell")
