"""Training learns from what was seen on screen, not from what was served."""

from __future__ import annotations

from pipelines.features.replay import Windows, training_rows
from rankstream.contracts.codec import decode_batch, encode_batch
from tests.parity.events import START_MS, an_event

SEEN = ["i0", "i1", "i2"]  # of ten that were served: the log has no event of the others
CLICKED = "i1"


def test_training_has_a_row_for_each_impression_and_for_nothing_else() -> None:
    events = [
        an_event("impression", slot, user="u1", request_id="r1", item_id=item, position=slot)
        for slot, item in enumerate(SEEN)
    ]
    events.append(an_event("click", 10, after_ms=500, user="u1", request_id="r1", item_id=CLICKED))

    rows = training_rows(
        decode_batch(encode_batch(events)),
        {},
        until_ms=START_MS + 86_400_000,
        windows=Windows(),
    )

    assert [rows.items[item] for item in rows.item.tolist()] == SEEN
    assert rows.clicked.tolist() == [0, 1, 0]
