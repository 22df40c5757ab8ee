"""Attributes that events state, against a reading of one event after another."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rankstream.contracts.codec import attributes_at, decode_batch
from rankstream.contracts.columns import Kind
from rankstream.features.state import STATED
from rankstream.pb import events_pb2 as pb
from rankstream.stream.intake import take_in

NAMES = ("age", "traffic", "shoe")
NUMBERS = (0.0, 1.5, -3.0, 1e9, 1.1e9, float("nan"), float("inf"))
ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(NAMES), st.sampled_from(("", "wet")),
        st.sampled_from(NUMBERS),
    ),
    max_size=16,
)  # fmt: skip
KINDS = st.sampled_from((Kind.USER_UPDATE, Kind.CONTEXT, Kind.VISIT))


@example([Kind.CONTEXT] * 3, [(0, "traffic", "", 1.5), (0, "traffic", "", -3.0)], {0})
@given(st.lists(KINDS, min_size=3, max_size=3), ENTRIES, st.sets(st.integers(0, 2)))
def test_attributes_are_those_of_one_event_after_another(
    kinds: list[Kind], entries: list[tuple[int, str, str, float]], taken: set[int]
) -> None:
    # A producer may send entries in any order, a name twice, and text for a number.
    strings = ["", *NAMES, "wet"]
    columns = decode_batch(
        pb.EventBatch(
            strings=strings,
            kind=[int(kind) for kind in kinds],  # type: ignore[misc]  # an enum's numbers
            event_id=b"".join(UUID(int=n).bytes for n in range(len(kinds))),
            event_time_ms=[10 + n for n in range(len(kinds))],
            user_id=[1 + n % 2 for n in range(len(kinds))],
            attribute_row=[row for row, *_ in entries],
            attribute_name=[strings.index(name) for _, name, *_ in entries],
            attribute_text=[strings.index(text) for *_, text, _ in entries],
            attribute_number=[number for *_, number in entries],
        ).SerializeToString()
    )
    rows = np.array(sorted(taken), np.intp)

    intake = take_in(columns, rows)
    places = np.arange(len(intake.attributes.row))
    found = zip(*intake.stated(places, np.arange(len(columns.strings)) * 10), strict=True)

    expected = [
        (10 * int(columns.user_id[row]), place, 10 + row, value)
        for row in rows.tolist()
        for place, (kind, name) in enumerate(STATED)
        if kind == kinds[row]
        and isinstance(value := attributes_at(columns, row).get(name), float)
        and abs(value) <= 1e9
    ]
    assert sorted(found) == sorted(expected)
