"""Updates of counters folded in runs: where a run is cut changes nothing, also when keys expire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.record import Record
from rankstream.features.deltas import Entity
from rankstream.features.expiry import STEPS
from rankstream.features.touched import Touched
from rankstream.pb import events_pb2 as pb
from rankstream.stream.items import ItemPartition
from tests.parity.events import START_MS

STEP_MS = 60_000
TTL_MS = STEPS * STEP_MS
KEYS = ("a", "b", "c", "d")

Delta = tuple[str, str, int, int, int]  # entity, key, time, impressions, value

DELTA = st.tuples(
    st.sampled_from([f"ENTITY_{entity.name}" for entity in Entity]),
    st.sampled_from(KEYS),
    st.integers(0, 3 * TTL_MS),
    st.integers(-1, 5),
    st.integers(0, 9),
)
UPDATES = st.tuples(st.integers(0, 1), st.integers(0, 12), st.lists(DELTA, max_size=4))


def record(offset: int, source: int, source_offset: int, deltas: list[Delta]) -> Record:
    value = pb.FeatureUpdates(
        source_partition=source,
        source_offset=source_offset,
        strings=["", *(key for _, key, *_ in deltas)],
        entity=[entity for entity, *_ in deltas],
        key=range(1, len(deltas) + 1),
        event_time_ms=[START_MS + after_ms for _, _, after_ms, *_ in deltas],
    )
    for name, column in (("impressions", 3), ("value_micros", 4)):
        getattr(value, name).extend(delta[column] for delta in deltas)
    for name in ("clicks", "views", "purchases", "ratings", "rating_micros"):
        getattr(value, name).extend([0] * len(deltas))
    return Record("feature-updates", 0, offset, 0, b"", value.SerializeToString())


@given(st.lists(UPDATES, min_size=1, max_size=12), st.data())
def test_where_a_run_is_cut_changes_nothing(
    updates: list[tuple[int, int, list[Delta]]], data: st.DataObject
) -> None:
    records = [record(offset, *update) for offset, update in enumerate(updates)]
    if data.draw(st.booleans()):
        records[len(records) // 2] = Record(
            "feature-updates", 0, len(records) // 2, 0, b"", b"\xff"
        )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records)))) | {len(records)})
    one, runs = ItemPartition(0, TTL_MS), ItemPartition(0, TTL_MS)
    singly, together = ({entity: Touched() for entity in Entity} for _ in range(2))
    fates = [[0, 0], [0, 0]]

    for cut in records:
        fold(one, [cut], singly, fates[0])
    start = 0
    for end in cuts:
        fold(runs, records[start:end], together, fates[1])
        start = end

    assert together == singly
    assert fates[0] == fates[1]
    for entity in Entity:
        assert runs.rows(entity, KEYS) == one.rows(entity, KEYS)
    assert runs.sizes() == one.sizes()


def fold(
    state: ItemPartition, run: list[Record], touched: dict[Entity, Touched], fates: list[int]
) -> None:
    changed = state.fold_updates(run)
    for entity in Entity:
        touched[entity].follow(changed.touched[entity])
    fates[0] += changed.duplicates
    fates[1] += len(changed.refused)
