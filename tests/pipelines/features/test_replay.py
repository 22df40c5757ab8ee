"""Which impressions become rows, and what their features know."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.features.delays import PURCHASES_MIN
from pipelines.features.replay import Windows, training_rows
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.errors import InvalidInput
from rankstream.features import spec
from tests.parity.events import START_MS, an_event


def test_an_impression_whose_click_window_is_open_is_no_row() -> None:
    columns = decode_batch(encode_batch([an_event("impression", 1), an_event("click", 2)]))
    windows = Windows(click_window_ms=1_000)

    with pytest.raises(InvalidInput, match=r"2 events .* click window \(1000 ms\) has closed"):
        training_rows(columns, {}, until_ms=START_MS + 999, windows=windows)

    rows = training_rows(columns, {}, until_ms=START_MS + 1_000, windows=windows)
    assert rows.clicked.tolist() == [1]


def test_a_purchase_is_a_label_once_its_window_has_closed() -> None:
    shown = [an_event("impression", number, request_id=f"r{number}") for number in (1, 2)]
    bought = an_event("purchase", 3, after_ms=5_000, request_id="r1")
    columns = decode_batch(encode_batch([*shown, bought]))
    windows = Windows(click_window_ms=1_000, conversion_window_ms=10_000)

    def purchased(until_ms: int) -> list[int]:
        rows = training_rows(columns, {}, until_ms=START_MS + until_ms, windows=windows)
        return [int(bought) for bought in rows.purchased]

    assert purchased(9_999) == [-1, -1]
    assert purchased(10_000) == [1, 0]


def test_enough_purchases_tell_how_many_are_still_to_come() -> None:
    """Half of the purchases of the first day come within an hour, half within two."""
    hour_ms = 3_600_000
    events = []
    for number in range(2 * PURCHASES_MIN):
        names = {"request_id": f"r{number}", "user_id": f"u{number}"}
        after_ms = hour_ms * (1 + number % 2)
        events.append(an_event("impression", 3 * number, after_ms=0, **names))
        events.append(an_event("purchase", 3 * number + 1, after_ms=after_ms, **names))
    for number, user in ((997, "waits"), (998, "bought")):
        names = {"request_id": f"r{number}", "user_id": user}
        events.append(an_event("impression", 3 * number, after_ms=9 * hour_ms, **names))
    quick = an_event("purchase", 2_999, after_ms=9 * hour_ms + 1, **names)
    columns = decode_batch(encode_batch([*events, quick]))
    windows = Windows(click_window_ms=1_000, conversion_window_ms=8 * hour_ms)

    rows = training_rows(columns, {}, until_ms=START_MS + 10 * hour_ms, windows=windows)

    come = PURCHASES_MIN / (2 * PURCHASES_MIN + 1)
    assert rows.purchases_come[-2:] == pytest.approx([come, come])
    bought = dict(zip([rows.users[u] for u in rows.user], rows.purchased.tolist(), strict=True))
    assert (bought.pop("waits"), bought.pop("bought")) == (-1, 1)
    assert set(bought.values()) == {1}
    assert rows.purchases_come[:-2].tolist() == [1.0] * (2 * PURCHASES_MIN)


def test_features_of_a_nightly_refresh_know_nothing_of_the_day() -> None:
    day_ms = 86_400_000
    day = START_MS // day_ms * day_ms + day_ms - START_MS
    shown = [
        an_event("impression", number, after_ms=day + after_ms, request_id=f"r{number}")
        for number, after_ms in enumerate((-5_000, 1_000, 2_000))
    ]
    columns = decode_batch(encode_batch(shown))
    until_ms = START_MS + 2 * day_ms

    def seen(known_ms: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> list[int]:
        rows = training_rows(columns, {}, until_ms=until_ms, windows=Windows(), known_ms=known_ms)
        names = ("user_log_impressions", "item_log_impressions")
        counts = np.expm1(rows.features[:, [spec.NAMES.index(name) for name in names]])
        assert np.array_equal(counts[:, 0], counts[:, 1])
        return [round(count) for count in counts[:, 0].tolist()]

    assert seen(lambda time_ms: time_ms) == [0, 1, 2]
    assert seen(lambda time_ms: time_ms // day_ms * day_ms) == [0, 1, 1]


def test_a_row_knows_its_position_and_keeps_it_when_taken() -> None:
    shown = [
        an_event("impression", slot, after_ms=slot, item_id=f"i{slot}", position=7 - slot)
        for slot in range(3)
    ]

    rows = training_rows(
        decode_batch(encode_batch(shown)), {}, until_ms=START_MS + 86_400_000, windows=Windows()
    )

    assert rows.position.tolist() == [7, 6, 5]
    assert rows.take(np.array([2, 0])).position.tolist() == [5, 7]
