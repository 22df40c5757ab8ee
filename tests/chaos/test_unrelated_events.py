"""Feedback about one thing never changes another: a session that goes on counts nothing again.

Metarank 0.7.11 counts the impressions of an open session anew with every feedback event, so an
item's CTR falls when something else is clicked.
"""

from __future__ import annotations

import pytest

from rankstream.features import spec
from tests.parity.events import START_MS, an_event
from tests.parity.strategies import SETTINGS
from tests.parity.stream import Stream

AS_OF_MS = START_MS + 60_000
CTR = ("item_ctr_5m", "item_ctr_1h", "item_ctr_24h", "item_ctr_7d", "item_ctr")


def ctr_of(stream: Stream, item: str) -> list[float]:
    features = dict(zip(spec.NAMES, stream.features("ann", item, AS_OF_MS), strict=True))
    return [float(features[name]) for name in CTR]


def test_unrelated_events_never_change_an_items_ctr() -> None:
    stream = Stream(SETTINGS)
    slate = [an_event("impression", n, item_id=f"i{n}", position=n) for n in range(3)]
    stream.send([*slate, an_event("click", 10, after_ms=1_000, item_id="i0")])
    before = ctr_of(stream, "i0")

    for n in range(20, 40):
        stream.send([an_event("click", n, after_ms=n * 1_000, item_id="i1")])
        stream.send([an_event("view", 100 + n, after_ms=n * 1_000, item_id="i2", value=5.0)])
        stream.send([an_event("rate", 200 + n, after_ms=n * 1_000, item_id="i1", value=1.0)])
        stream.send([an_event("click", 300 + n, user="bob", item_id="i2", request_id="r9")])

    assert before == ctr_of(stream, "i0")
    strength = spec.PRIOR_STRENGTH
    assert before[-1] == pytest.approx((1 + spec.CTR_PRIOR * strength) / (1 + strength))


def test_related_events_do_change_it() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("impression", 1)])
    before = ctr_of(stream, "i0")

    stream.send([an_event("click", 2, after_ms=1_000)])

    assert all(now > then for now, then in zip(ctr_of(stream, "i0"), before, strict=True))
