"""A log without an impression that can be judged yields no rows."""

from __future__ import annotations

import pytest

from pipelines.features.replay import Windows, training_rows
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.errors import InvalidInput
from tests.parity.events import START_MS, an_event


def test_an_impression_whose_click_window_is_open_is_no_row() -> None:
    columns = decode_batch(encode_batch([an_event("impression", 1), an_event("click", 2)]))
    windows = Windows(click_window_ms=1_000)

    with pytest.raises(InvalidInput, match=r"2 events .* click window \(1000 ms\) has closed"):
        training_rows(columns, {}, until_ms=START_MS + 999, windows=windows)

    rows = training_rows(columns, {}, until_ms=START_MS + 1_000, windows=windows)
    assert rows.clicked.tolist() == [1]
