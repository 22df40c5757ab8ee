"""Item updates in retrieval: out of order, repeated, deleted, invalid."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream.adapters.cold_vectors import ColdVectors, ContentVectors, Vocabulary
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.candidates import item_columns
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.item_columns import ItemColumns, facts_of
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidEvent
from rankstream.pb import events_pb2 as pb
from rankstream.pb import filter_pb2, retrieval_pb2
from tests.serving_artifacts import pointer, write_index

T_MS = 1_800_000_000_000
ITEM_IDS = [f"i{n}" for n in range(6)]

Update = tuple[str, int, bool]  # item, minutes after T_MS, withdrawn


def a_retrieval(registry: CollectorRegistry | None = None) -> Retrieval:
    return Retrieval(
        Limits("artifacts"),
        load=Catalog.load,
        health=Health(INDEX, ITEMS),
        metrics_of=Metrics(registry or CollectorRegistry()),
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


async def test_a_new_item_is_retrievable_at_once_and_a_withdrawn_one_never(
    tmp_path: Path,
) -> None:
    retrieval = a_retrieval()
    await point_to(retrieval, tmp_path, ITEM_IDS[:3], "index-1")
    await retrieval.follow_item(an_item(("i4", 1, False)))
    await retrieval.follow_item(an_item(("i5", 1, False)))
    await retrieval.follow_item(an_item(("i3", 1, True)))
    before = await offered(retrieval)
    await retrieval.follow_item(an_item(("i5", 2, True)))
    after = await offered(retrieval)

    await point_to(retrieval, tmp_path, ITEM_IDS, "index-2")

    assert before == {*ITEM_IDS[:3], "i4", "i5"}
    assert after == {*ITEM_IDS[:3], "i4"}
    assert await offered(retrieval) == set(ITEM_IDS) - {"i3", "i5"}


async def test_a_new_item_comes_near_by_the_vector_of_its_category(tmp_path: Path) -> None:
    retrieval = a_retrieval()
    vectors = np.eye(6, 4, dtype=np.float32)
    cold = ColdVectors({"tea": np.array([0, 2, 0, 0], np.float32)}, np.zeros(4, np.float32))
    ones = np.ones(6, np.float32)
    artifact = write_index(tmp_path, "index-1", ITEM_IDS, vectors, ones, cold=cold)
    value = pointer("retrieval", "champion", artifact)
    await retrieval.follow_model(Record("models", 0, 0, T_MS, b"retrieval/champion", value))
    for item_id, category in (("new-tea", "tea"), ("new-rest", "soap")):
        await retrieval.follow_item(an_item((item_id, 1, False), category=category))
    near = retrieval_pb2.RetrieveRequest(k=2, recent_items=[id64("i1")])
    teas = filter_pb2.ItemFilter(categories=["tea"])
    only = retrieval_pb2.RetrieveRequest(k=9, recent_items=[id64("i1")], filter=teas)

    found, filtered = await retrieval.retrieve(near), await retrieval.retrieve(only)
    denied = retrieval_pb2.RetrieveRequest(k=9, filter=teas, exclude_item_ids=["new-tea"])

    assert list(found.item_id) == ["new-tea", "i1"]
    assert [bits >> list(found.source_name).index("fresh") & 1 for bits in found.named_by] == [1, 0]
    assert list(filtered.item_id) == ["new-tea"]
    assert list((await retrieval.retrieve(denied)).item_id) == []


def by_content(dimension: int) -> ColdVectors:
    """An item with the word `green` is found in one direction, others are nowhere."""
    vectors = np.zeros((1, 4), np.float32)
    vectors[0, dimension] = 2
    nowhere = np.zeros(4, np.float32)
    known = Vocabulary(np.array([id64("word:green")], np.uint64), {})
    return ColdVectors({}, nowhere, ContentVectors(nowhere, known, vectors))


async def test_a_new_item_comes_near_by_its_text_in_this_index_and_in_the_next(
    tmp_path: Path,
) -> None:
    registry, found = CollectorRegistry(), []
    retrieval = a_retrieval(registry)
    for number, dimension in enumerate((1, 2)):
        vectors, ones = np.eye(6, 4, dtype=np.float32), np.ones(6, np.float32)
        name, cold = f"index-{number}", by_content(dimension)
        artifact = write_index(tmp_path, name, ITEM_IDS, vectors, ones, cold=cold)
        value = pointer("retrieval", "champion", artifact)
        await retrieval.follow_model(Record("models", 0, 0, T_MS, b"retrieval/champion", value))
        if not number:
            await retrieval.follow_item(an_item(("dull", 1, False), title="Tea"))
            await retrieval.follow_item(an_item(("tea", 1, False), title="GREEN tea"))
        near = retrieval_pb2.RetrieveRequest(k=2, recent_items=[id64(f"i{dimension}")])
        found.append(list((await retrieval.retrieve(near)).item_id))

    assert found == [["tea", "i1"], ["tea", "i2"]]
    for state, items in (("fresh", 2), ("fresh_by_content", 1)):
        assert registry.get_sample_value("rankstream_retrieval_items", {"state": state}) == items


async def test_items_that_the_next_index_lacks_stay_retrievable(tmp_path: Path) -> None:
    retrieval = a_retrieval()
    await point_to(retrieval, tmp_path, ITEM_IDS[:4], "index-1")
    for item_id in ("i0", "i4"):
        await retrieval.follow_item(an_item((item_id, 1, False)))
    await retrieval.follow_item(an_item(("i1", 1, True)))

    await point_to(retrieval, tmp_path, ITEM_IDS[2:4], "index-2")

    assert await offered(retrieval) == {"i0", "i2", "i3", "i4"}


async def test_what_comes_while_an_index_is_loaded_is_not_lost(tmp_path: Path) -> None:
    registry, entered, go_on = CollectorRegistry(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(Catalog):
        @property
        def hashes(self) -> npt.NDArray[np.uint64]:  # read where attributes are made
            loop.call_soon_threadsafe(entered.set)
            assert go_on.wait(10)
            return self._hashes

        @hashes.setter
        def hashes(self, value: npt.NDArray[np.uint64]) -> None:
            self._hashes = value

    retrieval = Retrieval(
        Limits("artifacts"),
        load=Slow.load,
        health=Health(INDEX, ITEMS),
        metrics_of=Metrics(registry),
    )
    loading = asyncio.create_task(point_to(retrieval, tmp_path, ITEM_IDS[:3], "index-1"))
    await entered.wait()
    for update in (("i1", 1, True), ("i4", 1, False)):
        await retrieval.follow_item(an_item(update))
    go_on.set()
    await loading

    assert await offered(retrieval) == {"i0", "i2", "i4"}


async def test_of_too_many_new_items_the_oldest_are_left_out_and_counted(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    retrieval = Retrieval(
        Limits("artifacts", fresh_max=2),
        load=Catalog.load,
        health=Health(INDEX, ITEMS),
        metrics_of=Metrics(registry),
    )
    await point_to(retrieval, tmp_path, ITEM_IDS[:1], "index-1")
    for item_id in ("i1", "i2", "i3"):
        await retrieval.follow_item(an_item((item_id, 1, False)))

    assert await offered(retrieval) == {"i0", "i2", "i3"}
    name = "rankstream_retrieval_degraded_total"
    assert registry.get_sample_value(name, {"reason": "fresh_full"}) == 1


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
