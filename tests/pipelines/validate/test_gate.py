"""Clean rows pass; every single fault is found, named, and alone to blame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.features.replay import ItemFacts, TrainingRows
from pipelines.validate import gate as gate_module
from pipelines.validate.gate import gate, validate
from pipelines.validate.leakage import feature_time_check
from pipelines.validate.limits import Limits
from pipelines.validate.ranges import RANGES, SHIFT_SD_MAX, by_name
from pipelines.validate.reference import REFERENCE, read_reference
from pipelines.validate.report import HTML, JSON
from pipelines.validate.verdicts import Validation
from rankstream.errors import InvalidInput
from rankstream.features import spec
from tests.pipelines.validate.sample import (
    AS_OF_MS,
    CATALOGUE,
    N,
    clean_rows,
    feature,
    middle,
    reference_of,
    with_feature,
)

CLEAN = clean_rows()
REFERENCE_OF_OTHERS = reference_of(clean_rows(seed=2))
ANY_FEATURE = st.sampled_from(spec.NAMES)
MOVABLE = st.sampled_from([n for n in spec.NAMES if isfinite(by_name(SHIFT_SD_MAX, n))])
ANY_ROW = st.integers(0, N - 1)
few = settings(max_examples=15, deadline=None)


def validated(rows: TrainingRows, **options: object) -> Validation:
    given_options = {"as_of_ms": AS_OF_MS, "reference": REFERENCE_OF_OTHERS} | options
    return validate(rows, CATALOGUE, **given_options)  # type: ignore[arg-type]


def blamed(found: Validation) -> list[tuple[str, str]]:
    wrong = (*found.having("fail"), *found.having("error"))
    return [(check.name, check.subject) for check in wrong]


@few
@given(seed=st.integers(0, 2**32 - 1))
def test_clean_rows_pass_every_check(seed: int) -> None:
    rows = clean_rows(seed=seed)

    found = validated(rows)

    assert blamed(found) == []
    assert found.verdict == "pass"
    assert found.having("inconclusive") == ()


@few
@given(name=ANY_FEATURE, row=ANY_ROW, value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_cell_that_is_not_finite_is_named_with_its_row(
    name: str, row: int, value: float
) -> None:
    found = validated(with_feature(CLEAN, name, value, [row]))

    assert blamed(found) == [("finite", name)]
    assert found.having("fail")[0].rows == (row,)


@few
@given(name=ANY_FEATURE, row=ANY_ROW, above=st.booleans(), by=st.floats(0.01, 1e6))
def test_one_cell_out_of_range_is_named_with_its_row(
    name: str, row: int, above: bool, by: float
) -> None:
    allowed = by_name(RANGES, name)
    value = np.float32(allowed.high + by if above else allowed.low - by)
    assume(not (above and allowed.above_share_max) and value != allowed.unknown)
    assume(not allowed.low <= value <= allowed.high)

    found = validated(with_feature(CLEAN, name, float(value), [row]))

    assert blamed(found) == [("range", name)]
    assert found.having("fail")[0].rows == (row,)


def test_a_windowed_rate_may_pass_1_now_and_then_but_not_often() -> None:
    now_and_then = with_feature(CLEAN, "user_ctr_5m", 1.2, np.arange(N // 100))
    often = with_feature(CLEAN, "user_ctr_5m", 1.2, np.arange(N // 100 + 1))

    assert blamed(validated(now_and_then)) == []
    assert blamed(validated(often)) == [("range", "user_ctr_5m")]


@few
@given(name=ANY_FEATURE, at_default=st.booleans())
def test_a_feature_that_no_longer_varies_is_named(name: str, at_default: bool) -> None:
    low, span = middle(name)
    default = spec.FEATURES[spec.NAMES.index(name)].default
    value = default if at_default else low + span / 3

    found = validated(with_feature(CLEAN, name, value))

    assert blamed(found) == [("constant", name)]


def test_what_nobody_ever_sent_may_stay_at_its_default() -> None:
    unsent = with_feature(CLEAN, "item_price", -1.0)

    first, later = (validated(unsent, reference=r) for r in (None, reference_of(unsent)))

    assert blamed(first) == blamed(later) == []
    assert any("item_price" in check.found for check in first.checks)


def test_a_constant_beside_its_default_is_named_without_a_reference_too() -> None:
    found = validated(with_feature(CLEAN, "item_price", 7.0), reference=None)

    assert blamed(found) == [("constant", "item_price")]


@few
@given(name=MOVABLE, up=st.booleans())
def test_a_shifted_mean_is_named(name: str, up: bool) -> None:
    low, span = middle(name)
    limit_sd = by_name(SHIFT_SD_MAX, name)
    values = feature(CLEAN, name)
    # Squeezed against an end of what was clean: within the range, far from the old mean.
    end = low + span if up else low
    share = 0.3 if limit_sd < 1 else 0.05
    moved = np.where(values == values, end + (values - end) * share, values)
    if limit_sd > 1:
        room = by_name(RANGES, name).high - end if up else end - by_name(RANGES, name).low
        moved = moved + (1 if up else -1) * 0.9 * room

    found = validated(with_feature(CLEAN, name, moved))

    assert blamed(found) == [("mean", name)]


@few
@given(name=MOVABLE, ratio=st.floats(0.05, 0.4))
def test_a_spread_that_shrank_is_named(name: str, ratio: float) -> None:
    values = feature(CLEAN, name)
    centre = values.mean()

    found = validated(with_feature(CLEAN, name, centre + (values - centre) * np.float32(ratio)))

    assert blamed(found) == [("spread", name)]


@few
@given(name=ANY_FEATURE, sign=st.sampled_from([1.0, -1.0]))
def test_a_feature_that_tells_the_label_is_named(name: str, sign: float) -> None:
    low, span = middle(name)
    noise = np.random.default_rng(3).random(N)
    told = low + span * (0.5 + sign * 0.25 * (CLEAN.clicked - 0.5) * 2 + 0.2 * (noise - 0.5))

    found = validated(with_feature(CLEAN, name, told))

    assert blamed(found) == [("label leak", name)]


@few
@given(entity=st.sampled_from(["user", "item", "category"]), row=ANY_ROW)
def test_an_event_at_the_served_time_shows_in_idle_times(entity: str, row: int) -> None:
    found = validated(with_feature(CLEAN, f"{entity}_log_idle_s", 0.0, [row]))

    assert blamed(found) == [("feature time", "")]
    assert found.having("fail")[0].rows == (row,)


@few
@given(row=ANY_ROW, ahead_ms=st.integers(0, 10**9))
def test_a_feature_from_the_future_is_named_with_its_row(row: int, ahead_ms: int) -> None:
    newest = CLEAN.time_ms - 1
    newest[row] = CLEAN.time_ms[row] + ahead_ms

    found = feature_time_check(newest, CLEAN.time_ms)

    assert (found.name, found.subject, found.verdict) == ("feature time", "", "fail")
    assert found.rows == (row,)
    assert f"row {row} by {ahead_ms} ms" in found.found


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_kind_are_named(label: int) -> None:
    found = validated(replace(CLEAN, clicked=np.full(N, label, np.uint8)))

    assert blamed(found) == [("ctr", "")]


def test_a_label_that_is_not_0_or_1_is_named_with_its_row() -> None:
    clicked = CLEAN.clicked.copy()
    clicked[41] = 2

    found = validated(replace(CLEAN, clicked=clicked))

    assert blamed(found) == [("label", "")]
    assert found.having("fail")[0].rows == (41,)


def test_a_ctr_far_from_the_reference_is_named() -> None:
    clicked = CLEAN.clicked.copy()
    clicked[np.random.default_rng(1).random(N) < 0.6] = 0

    found = validated(replace(CLEAN, clicked=clicked))

    assert blamed(found) == [("ctr", "")]


@few
@given(hours=st.floats(24.1, 1e5) | st.floats(-1e5, -0.1))
def test_stale_rows_and_rows_of_the_future_are_named(hours: float) -> None:
    found = validated(CLEAN, as_of_ms=int(CLEAN.time_ms[-1] + hours * 3_600_000))

    assert blamed(found) == [("freshness", "")]


@few
@given(genre=st.text(min_size=1).filter(lambda text: not text.startswith("genre")))
def test_unseen_categories_are_named(genre: str) -> None:
    items = {k: ItemFacts(genre, {}) if k < "i4" else facts for k, facts in CATALOGUE.items()}

    found = validate(CLEAN, items, as_of_ms=AS_OF_MS, reference=REFERENCE_OF_OTHERS)

    assert blamed(found) == [("categories", "")]
    assert repr(genre) in found.having("fail")[0].found


def test_too_few_rows_users_and_clicks_are_named() -> None:
    few_rows = CLEAN.take(np.arange(40))
    few_rows = replace(few_rows, user=np.minimum(few_rows.user, 3))

    found = validated(few_rows, as_of_ms=int(few_rows.time_ms[-1]))

    assert blamed(found) == [("rows", ""), ("users", ""), ("clicks", "")]


def test_a_difference_that_may_be_noise_is_inconclusive_and_not_a_failure() -> None:
    # As far off as the limit, but known from twelve users.
    few_users = CLEAN.take(np.flatnonzero(CLEAN.user < 12))
    moved = feature(few_users, "user_age") + np.float32(0.9 * 65 / np.sqrt(12))
    limits = Limits(rows_min=1, users_min=1, clicks_min=1)

    found = validated(with_feature(few_users, "user_age", moved), limits=limits)

    unclear = [c for c in found.having("inconclusive") if c.name == "mean"]
    assert blamed(found) == []
    assert "user_age" in unclear[0].found


def test_a_real_but_small_difference_passes_however_many_rows_show_it() -> None:
    many = clean_rows(60_000, seed=5)
    moved = feature(many, "user_age") + np.float32(0.1 * 65 / np.sqrt(12))

    found = validated(with_feature(many, "user_age", moved), as_of_ms=int(many.time_ms[-1]))

    assert blamed(found) == []
    assert found.having("inconclusive") == ()


def test_rows_of_another_shape_are_named_and_asked_nothing_else() -> None:
    found = validated(replace(CLEAN, features=CLEAN.features[:, 1:]))

    assert blamed(found) == [("shape", "")]
    assert len(found.checks) == 1


def test_no_rows_are_too_few() -> None:
    found = validated(CLEAN.take(np.arange(0)))

    assert ("rows", "") in blamed(found)
    assert found.verdict == "fail"


def test_a_check_that_cannot_run_is_an_error_and_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.validate.gate.newest_event_ms", lambda features, time_ms: time_ms[1:] - 1
    )

    with pytest.raises(InvalidInput, match=r"feature time: could not run: ValueError"):
        gate(CLEAN, CATALOGUE, tmp_path, data_version="v1", as_of_ms=AS_OF_MS, reference=None)

    assert validated(CLEAN).verdict == "error"


def test_a_pandera_check_that_breaks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise TypeError("no such column")

    monkeypatch.setattr("pipelines.validate.schema.outside", broken)

    found = validated(CLEAN)

    assert found.verdict == "error"
    assert {check.subject for check in found.having("error")} == set(spec.NAMES)


def test_a_refusal_names_the_checks_and_the_report_and_leaves_no_reference(
    tmp_path: Path,
) -> None:
    bad = with_feature(CLEAN, "item_ctr", np.nan, [7])
    report = tmp_path / "v1" / HTML

    with pytest.raises(InvalidInput) as refused:
        gate(bad, CATALOGUE, tmp_path, data_version="v1", as_of_ms=AS_OF_MS,
             reference=REFERENCE_OF_OTHERS)  # fmt: skip

    assert "finite of item_ctr: 1 of 6000 rows: nan in row 7" in str(refused.value)
    assert "Nothing was trained" in str(refused.value)
    assert str(report) in str(refused.value)
    assert sorted(path.name for path in report.parent.iterdir()) == [HTML, JSON]


def test_rows_that_pass_are_the_reference_of_the_next(tmp_path: Path) -> None:
    gate(CLEAN, CATALOGUE, tmp_path, data_version="v1", as_of_ms=AS_OF_MS, reference=None)

    left = read_reference(tmp_path / "v1" / REFERENCE)
    again = validated(CLEAN, reference=left)

    assert left == reference_of(CLEAN).model_copy(update={"source": "v1"})
    assert again.verdict == "pass"
    assert again.reference == "v1"


def test_the_gate_asks_what_validate_asks(tmp_path: Path) -> None:
    options: dict[str, object] = {"as_of_ms": AS_OF_MS, "reference": REFERENCE_OF_OTHERS}
    ask: Callable[..., Validation] = gate_module.gate

    through = ask(CLEAN, CATALOGUE, tmp_path, data_version="v1", **options)

    assert through == validated(CLEAN)


def test_every_feature_has_a_range_that_holds_its_default() -> None:
    outside = [
        f.name
        for f in spec.FEATURES
        for allowed in [by_name(RANGES, f.name)]
        if not allowed.low <= f.default <= allowed.high and f.default != allowed.unknown
    ]

    assert outside == []
    with pytest.raises(LookupError, match="no pattern fits feature 'shoe_size'"):
        by_name(RANGES, "shoe_size")
