"""What one partition does with ordinary, late, repeated and refused events."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.contracts.codec import encode_batch
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.events import ItemUpdate
from rankstream.contracts.record import Record
from rankstream.errors import InvalidArtifact, InvalidBatch
from rankstream.features import spec
from rankstream.features.deltas import Entity
from rankstream.features.rows import USER_ROW
from rankstream.pb import events_pb2 as pb
from rankstream.stream import records
from rankstream.stream.items import ItemPartition
from rankstream.stream.partition import FoldSettings, UserPartition
from rankstream.topics import MAX_RECORD_BYTES
from tests.parity.events import START_MS, an_event
from tests.parity.stream import APPEND_MS, Stream

LATENESS_MS = 10_000
DAY_MS = 86_400_000
SETTINGS = FoldSettings(lateness_ms=LATENESS_MS)


def test_an_event_at_the_watermark_counts_and_one_behind_it_is_late() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("visit", 1, after_ms=LATENESS_MS + 5)])

    at_it = stream.send([an_event("visit", 2, after_ms=5)])
    behind = stream.send([an_event("visit", 3, after_ms=4)])

    assert (at_it.counts.folded, at_it.counts.late) == (1, 0)
    assert (behind.counts.folded, behind.counts.late) == (0, 1)
    assert behind.users.changed == set()


def test_an_event_sent_twice_counts_once_also_within_one_record() -> None:
    stream = Stream(SETTINGS)
    rating = an_event("rate", 1)

    first = stream.send([rating, rating])
    again = stream.send([rating])

    assert (first.counts.folded, first.counts.duplicates) == (1, 1)
    assert (again.counts.folded, again.counts.duplicates) == (0, 1)
    assert again.updates == {}
    assert not pb.LabelBatch.FromString(again.label_batch).user_id


def test_a_resent_event_with_a_newer_time_is_known_by_its_id() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("rate", 1)])

    again = stream.send([an_event("rate", 1, after_ms=SETTINGS.dedupe_ms)])

    assert again.counts.duplicates == 1


def test_ids_are_forgotten_once_their_events_are_long_past() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("rate", 1)])

    stream.tick(START_MS + SETTINGS.dedupe_ms + LATENESS_MS + 1)

    assert stream.users.sizes()["dedupe_ids"] == 0


def test_a_tick_moves_the_watermark_and_changes_no_user() -> None:
    stream = Stream(SETTINGS)

    out = stream.tick(START_MS)

    assert out.watermark_ms == START_MS - LATENESS_MS
    assert (out.counts.ticks, out.users.changed, len(stream.users.rows([""]))) == (1, set(), 0)


def test_an_event_from_the_far_future_is_refused_and_never_moves_the_watermark() -> None:
    settings = FoldSettings(limits=TimeLimits(ahead_ms_max=60_000))
    stream = Stream(settings)
    ahead = APPEND_MS + 60_001 - START_MS

    out = stream.send([an_event("visit", 1), an_event("visit", 2, after_ms=ahead)])

    assert out.watermark_ms == START_MS - settings.lateness_ms
    assert (out.counts.folded, out.counts.refused) == (1, 1)


def test_refused_rows_are_one_dead_letter_with_the_original_bytes() -> None:
    stream = Stream(SETTINGS)
    ahead = APPEND_MS + 1_000_000 - START_MS
    record = encode_batch(
        [
            an_event("visit", 1),
            an_event("visit", 2, after_ms=ahead),
            an_event("visit", 3, after_ms=ahead),
        ]
    )

    stream.record(record)

    (dead,) = stream.dead
    assert (dead.code, list(dead.rows), dead.events) == ("event_time_out_of_range", [1, 2], 2)
    assert (dead.original, dead.partition, dead.offset) == (record, 1, 0)
    assert dead.dead_letter_id == "events/1/0"


def test_an_unmatched_click_can_be_replayed_from_its_dead_letter() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("visit", 1), an_event("click", 2, item_id="i7", request_id="r7")])

    stream.tick(START_MS + SETTINGS.conversion_window_ms + LATENESS_MS + 1)

    (dead,) = stream.unmatched
    assert (dead.code, dead.offset, list(dead.rows)) == (records.UNMATCHED_CODE, 0, [1])
    replayed = Stream(SETTINGS)
    replayed.send([an_event("impression", 3, item_id="i7", request_id="r7")])
    replayed.record(dead.original)
    assert replayed.labels["ann", "r7", "i7"][:2] == (pb.LABEL_PROVISIONAL, 1)


def test_events_of_other_items_never_change_an_items_ctr() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("impression", 1), an_event("click", 2, after_ms=1)])
    before = stream.features("nobody", "i0", START_MS + 5_000)

    for n in range(3, 60):
        kind = ("impression", "click", "purchase", "visit", "view")[n % 5]
        about = {} if kind == "visit" else {"item_id": f"other-{n % 7}"}
        stream.send([an_event(kind, n, user=f"u{n % 3}", after_ms=n, **about)])
    after = stream.features("nobody", "i0", START_MS + 5_000)

    of_item = [i for i, name in enumerate(spec.NAMES) if name.startswith("item_")]
    np.testing.assert_array_equal(after[of_item], before[of_item])


def test_what_was_served_but_never_seen_is_no_negative() -> None:
    stream = Stream(SETTINGS)
    # A slate of two was served; only the first was on screen, and was clicked.
    stream.send([an_event("impression", 1), an_event("click", 2, after_ms=1)])

    stream.tick(START_MS + SETTINGS.conversion_window_ms + LATENESS_MS + 1)

    assert list(stream.labels) == [("ann", "r0", "i0")]


def test_a_context_event_is_a_feature_of_its_user_and_of_nothing_else() -> None:
    stream = Stream(SETTINGS)
    rain = {"rain_mm_h": 2.5, "age": 7.0, "sky": "grey"}

    out = stream.send([an_event("context", 1, location="home", attributes=rain)])

    assert out.users.changed == {"ann"}
    assert (out.updates, out.counts.sessions_closed, out.counts.folded) == ({}, 0, 1)
    told, other = (stream.features(user, "i", START_MS, location="home") for user in ("ann", "bob"))
    (differing,) = np.flatnonzero(told != other).tolist()
    assert (spec.NAMES[differing], told[differing]) == ("context_rain_mm_h", 2.5)


def test_a_user_without_events_for_the_ttl_is_forgotten_and_begins_anew() -> None:
    stream = Stream(FoldSettings(lateness_ms=LATENESS_MS, state_ttl_ms=DAY_MS))
    stream.send([an_event("rate", 1), an_event("visit", 2, user="bob", after_ms=DAY_MS)])

    expired = stream.send([an_event("visit", 3, user="bob", after_ms=DAY_MS + DAY_MS // 2)])
    back = stream.send([an_event("visit", 4, after_ms=DAY_MS + DAY_MS // 2)])

    assert (expired.users.expired, expired.users.changed) == ({"ann"}, {"bob"})
    assert stream.users.sizes()["users"] == 2
    assert back.users.changed == {"ann"}
    row = np.frombuffer(dict(stream.users.rows(["ann"]))["ann"], USER_ROW)
    assert (row["totals"].sum(), row["recent"]["time_ms"].max()) == (0, 0)


def test_an_item_without_events_for_the_ttl_is_forgotten_unless_it_is_described() -> None:
    stream = Stream(SETTINGS, items_ttl_ms=DAY_MS)
    stream.describe([ItemUpdate(kind="item_update", item_id="i1", updated_ms=1, category="drama")])
    for n, item in enumerate(("i0", "i1")):
        stream.send([an_event("rate", n, item_id=item)])

    # Partitions forget by the events that they see: every item is rated again but these two.
    for n in range(50):
        stream.send([an_event("rate", 9 + n, item_id=f"later-{n}", after_ms=2 * DAY_MS)])

    known = {item for items in stream.items for item, _ in items.rows(Entity.ITEM, ["i0", "i1"])}
    assert known == {"i1"}


def test_rows_carry_the_offset_that_changed_them_last() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("visit", 1)])
    stream.send([an_event("visit", 2, user="bob")])

    rows = dict(stream.users.rows(["ann", "bob", "nobody"]))

    assert {user: int.from_bytes(row[4:12], "little") for user, row in rows.items()} == {
        "ann": 0,
        "bob": 1,
    }


def test_a_dump_that_was_altered_or_is_of_other_settings_is_refused_by_name() -> None:
    stream = Stream(SETTINGS)
    stream.send([an_event("visit", 1)])
    dump = b"".join(stream.users.dump())

    for broken in (dump[:-1], dump[:-1] + b"x", b"", b"other"):
        with pytest.raises(InvalidArtifact):
            UserPartition(1, 3, SETTINGS).load(broken)
    with pytest.raises(InvalidArtifact, match="Rebuild the state from the log"):
        UserPartition(1, 3, FoldSettings(lateness_ms=1)).load(dump)


def test_a_value_beyond_belief_stops_nothing() -> None:
    stream = Stream(SETTINGS)
    purchases = [an_event("purchase", n, value=1e9, request_id="r0") for n in range(1, 10_001)]

    stream.send(purchases)

    assert stream.counts["folded"] == 10_000


def _update(offset: int, value: bytes) -> Record:
    return Record("feature-updates", 0, offset, APPEND_MS, b"", value)


def test_updates_that_were_folded_before_are_passed_over() -> None:
    stream = Stream(SETTINGS)
    out = stream.send([an_event("rate", 1)])
    items = ItemPartition(0)
    (update,) = out.updates.values()

    first = items.fold_updates([_update(0, update)])
    row = items.rows(Entity.ITEM, ["i0"])
    again = items.fold_updates([_update(1, update)])

    assert (first.touched[Entity.ITEM].changed, first.duplicates) == ({"i0"}, 0)
    assert (again.touched[Entity.ITEM].changed, again.duplicates) == (set(), 1)
    assert items.rows(Entity.ITEM, ["i0"]) == row


@pytest.mark.parametrize(
    "record",
    [
        b"\xff",
        pb.FeatureUpdates(entity=["ENTITY_ITEM"], key=[1]).SerializeToString(),
        pb.FeatureUpdates(key=[0]).SerializeToString(),
    ],
)
def test_updates_that_are_none_are_refused_and_passed_over(record: bytes) -> None:
    items = ItemPartition(0)

    changed = items.fold_updates([_update(4, record)])

    assert isinstance(changed.refused[0], InvalidBatch)
    assert (changed.touched[Entity.ITEM].changed, items.offset) == (set(), 4)


def test_more_labels_than_a_record_holds_are_closed_run_by_run() -> None:
    stream = Stream(SETTINGS)
    labels, name = 12_000, "x" * 120
    for start in range(0, labels, 1_000):
        stream.send(
            [
                an_event(
                    "impression",
                    number,
                    user_id=f"u{number}{name}",
                    item_id=f"i{number}{name}",
                    request_id=f"r{number}{name}",
                )
                for number in range(start, start + 1_000)
            ]
        )

    sizes = []
    for tick in range(10):
        out = stream.tick(START_MS + 3 * DAY_MS + tick)
        sizes.append(len(out.label_batch or b""))

    assert max(sizes) < MAX_RECORD_BYTES
    assert sum(size > MAX_RECORD_BYTES / 10 for size in sizes) > 1
    assert stream.users.sizes()["open_labels"] == 0
    assert stream.counts["labels_closed"] == labels
