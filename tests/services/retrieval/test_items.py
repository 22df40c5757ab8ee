"""Item updates in retrieval: out of order, repeated, deleted, invalid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidEvent
from rankstream.pb import events_pb2 as pb
from rankstream.pb import retrieval_pb2
from services.retrieval import item_columns
from services.retrieval.app import INDEX, ITEMS, Retrieval
from services.retrieval.catalog import Catalog
from services.retrieval.item_columns import ItemColumns, facts_of
from services.retrieval.settings import RetrievalSettings
from tests.serving_artifacts import pointer, write_index

T_MS = 1_800_000_000_000
ITEM_IDS = [f"i{n}" for n in range(6)]

Update = tuple[str, int, bool]  # item, minutes after T_MS, withdrawn


def a_retrieval() -> Retrieval:
    return Retrieval(
        RetrievalSettings(),
        load=Catalog.load,
        health=Health(INDEX, ITEMS),
        metrics_of=Metrics(CollectorRegistry()),
    )


def an_item(update: Update, **changes: object) -> Record:
    item_id, minute, withdrawn = update
    item = pb.Item(item_id=item_id, updated_ms=T_MS + 60_000 * minute, withdrawn=withdrawn)
    item.MergeFrom(pb.Item(**changes))  # type: ignore[arg-type]  # fields of a message, by name
    at_ms = T_MS + 60_000 * minute
    return Record("items", 0, 0, at_ms, item_id.encode(), item.SerializeToString())


async def point_to(retrieval: Retrieval, folder: Path, items: Sequence[str], name: str) -> None:
    vectors = np.eye(len(items), 4, dtype=np.float32)
    artifact = write_index(folder, name, list(items), vectors, np.ones(len(items), np.float32))
    value = pointer("retrieval", "champion", artifact)
    await retrieval.follow_model(Record("models", 0, 0, T_MS, b"retrieval/champion", value))


async def offered(retrieval: Retrieval) -> set[str]:
    reply = await retrieval.retrieve(retrieval_pb2.RetrieveRequest(k=100))
    return set(reply.item_id)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_newest_update_wins_in_whatever_order_they_come(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    retrieval = a_retrieval()
    await point_to(retrieval, tmp_path, ITEM_IDS, "index-1")
    updates: list[Update] = [("i1", 1, False), ("i1", 2, True), ("i1", 3, False)]
    mirrored: list[Update] = [("i2", 1, True), ("i2", 2, False), ("i2", 3, True)]

    for at in order:
        await retrieval.follow_item(an_item(updates[at]))
        await retrieval.follow_item(an_item(mirrored[at]))

    assert await offered(retrieval) == set(ITEM_IDS) - {"i2"}


async def test_a_deleted_item_comes_back_only_with_something_newer(tmp_path: Path) -> None:
    retrieval = a_retrieval()
    await point_to(retrieval, tmp_path, ITEM_IDS, "index-1")
    deleted = Record("items", 0, 0, T_MS + 120_000, b"i1", None)

    await retrieval.follow_item(deleted)
    await retrieval.follow_item(an_item(("i1", 1, False)))
    outdated = await offered(retrieval)
    await retrieval.follow_item(an_item(("i1", 3, False)))

    assert outdated == set(ITEM_IDS) - {"i1"}
    assert await offered(retrieval) == set(ITEM_IDS)


async def test_an_item_is_retrievable_once_an_index_has_it_unless_it_was_withdrawn_meanwhile(
    tmp_path: Path,
) -> None:
    retrieval = a_retrieval()
    await point_to(retrieval, tmp_path, ITEM_IDS[:3], "index-1")
    await retrieval.follow_item(an_item(("i4", 1, False)))
    await retrieval.follow_item(an_item(("i5", 1, True)))
    before = await offered(retrieval)

    await point_to(retrieval, tmp_path, ITEM_IDS, "index-2")

    assert before == set(ITEM_IDS[:3])
    assert await offered(retrieval) == set(ITEM_IDS) - {"i5"}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Record("items", 0, 0, T_MS, b"i1", b"\xff"), "is not an Item"),
        (Record("items", 0, 0, T_MS, b"", b""), "item_id has 0 characters"),
        (an_item(("i1", -(T_MS // 60_000), True)), "is not a time"),
        (an_item(("i1", 0, True), updated_ms=T_MS + 60_001), "60001 ms ahead"),
        (an_item(("i1", 0, True), category="c" * 65), "65 bytes"),
        (an_item(("i1", 0, True), attributes={"price": float("nan")}), "not a number"),
    ],
)
async def test_an_update_that_breaks_the_contract_changes_nothing(
    tmp_path: Path, bad: Record, why: str
) -> None:
    retrieval = a_retrieval()
    await point_to(retrieval, tmp_path, ITEM_IDS, "index-1")

    with pytest.raises(InvalidEvent, match=why):
        await retrieval.follow_item(bad)

    assert await offered(retrieval) == set(ITEM_IDS)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=60),
    st.integers(min_value=1, max_value=7),
)
def test_the_newest_facts_are_kept_as_a_map_would_keep_them(
    updates: list[tuple[int, int]], recent_max: int
) -> None:
    columns, known = ItemColumns(), dict[str, tuple[int, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_columns, "RECENT_MAX", recent_max)
        for place, (number, time_ms) in enumerate(updates):
            name = f"item-{number}"
            item = pb.Item(item_id=name, updated_ms=time_ms, attributes={"price": place})

            facts = columns.learn(item)

            assert (facts is not None) == (time_ms >= known.get(name, (0, 0))[0])
            if facts is not None:
                known[name] = time_ms, place
    assert len(known) <= len(columns) <= len(known) + recent_max
    hashes = np.array([id64(name) for name in [*known, "nobody"]], np.uint64)
    found = facts_of(columns.frozen(), hashes)
    assert found["item"].tolist() == [*hashes[:-1].tolist(), 0]
    assert list(zip(found["updated_ms"], found["price"], strict=True))[:-1] == list(known.values())
