"""Clicks of a window against a sum over all label changes, whatever is sent again."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.metrics import Metrics
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.following import followers
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval
from rankstream.candidates.trending import BUCKETS, Trending
from rankstream.contracts.ids import id64
from rankstream.contracts.record import Record
from rankstream.contracts.shard import Shard
from rankstream.contracts.sources import Source, Sources
from rankstream.errors import InvalidBatch
from rankstream.pb import retrieval_pb2
from rankstream.pb.events_pb2 import LabelBatch
from tests.serving_artifacts import pointer, write_index

HOUR_MS = 3_600_000
T_MS = 500_000 * HOUR_MS
Change = tuple[str, int, int, int]  # item, hours after T_MS, clicked before and after


def a_batch(partition: int, first: int, changes: list[Change], at_ms: int = T_MS) -> LabelBatch:
    """A run of source records, one for each change."""
    return LabelBatch(
        source_partition=partition,
        first_offset=first,
        source_offset=first + len(changes) - 1,
        strings=[item for item, *_ in changes],
        item_id=range(len(changes)),
        impression_time_ms=[at_ms + hour * HOUR_MS for _, hour, *_ in changes],
        old_clicked=[old for *_, old, _ in changes],
        new_clicked=[new for *_, new in changes],
    )


def a_record(batch: LabelBatch, at_ms: int = T_MS + 1_000 * HOUR_MS) -> Record:
    return Record("labels", 0, 0, at_ms, b"", batch.SerializeToString())


def clicks_of(trending: Trending) -> dict[int, float]:
    return dict(zip(*(column.tolist() for column in trending.clicked()), strict=True))


change = st.tuples(
    st.sampled_from("abcd"), st.integers(0, 60), st.integers(0, 1), st.integers(0, 1)
)


@given(
    st.lists(st.lists(change, min_size=1, max_size=6), max_size=8),
    st.lists(st.lists(change, min_size=1, max_size=6), max_size=8),
    st.randoms(use_true_random=False),
)
def test_counts_are_the_sum_over_the_window_in_any_order_of_partitions(
    first: list[list[Change]], second: list[list[Change]], random: object
) -> None:
    runs = {0: first, 1: second}
    places = dict.fromkeys(runs, 0)
    offsets = dict.fromkeys(runs, 0)
    trending = Trending(window_ms=24 * HOUR_MS)
    folded: list[Change] = []
    while left := [p for p in runs if places[p] < len(runs[p])]:
        partition = random.choice(left)  # type: ignore[attr-defined]  # hypothesis' Random
        changes = runs[partition][places[partition]]
        batch = a_batch(partition, offsets[partition], changes)
        for _ in range(random.choice([1, 1, 2])):  # type: ignore[attr-defined]  # the same
            trending.fold(a_record(batch))
        places[partition] += 1
        offsets[partition] += len(changes)
        folded += changes

    newest = max((hour for _, hour, *_ in folded), default=0)
    expected: Counter[str] = Counter()
    for item, hour, old, new in folded:
        if hour > newest - BUCKETS:
            expected[item] += new - old
    assert clicks_of(trending) == {id64(i): n for i, n in expected.items() if n > 0}


def test_a_run_cut_by_a_worker_that_was_overtaken_is_not_counted() -> None:
    trending = Trending(window_ms=24 * HOUR_MS)
    trending.fold(a_record(a_batch(0, 0, [("a", 0, 0, 1)] * 3)))

    trending.fold(a_record(a_batch(0, 2, [("a", 0, 0, 1)] * 3)))

    assert clicks_of(trending) == {id64("a"): 3}


def test_items_with_the_fewest_clicks_are_forgotten_for_space() -> None:
    changes = [(item, 0, 0, 1) for item in "abbcccdddd"]
    trending = Trending(window_ms=24 * HOUR_MS, items_max=3)

    trending.fold(a_record(a_batch(0, 0, changes)))

    items, clicks = trending.clicked()
    assert items.tolist() == [id64("d")]
    assert clicks.tolist() == [4]


def test_another_shards_items_are_not_counted() -> None:
    changes = [(item, 0, 0, 1) for item in "abbccc"]
    parts = [Trending(window_ms=24 * HOUR_MS, shard=Shard(number, 2)) for number in range(2)]

    for part in parts:
        part.fold(a_record(a_batch(0, 0, changes)))

    counts = [clicks_of(part) for part in parts]
    assert counts[0] | counts[1] == {
        id64(item): n for item, n in zip("abc", (1, 2, 3), strict=True)
    }
    assert all(key % 2 == number for number, part in enumerate(counts) for key in part)


def test_a_time_ahead_of_the_log_does_not_empty_the_window() -> None:
    trending = Trending(window_ms=24 * HOUR_MS)
    trending.fold(a_record(a_batch(0, 0, [("a", 0, 0, 1)]), T_MS))

    trending.fold(a_record(a_batch(0, 1, [("b", 900, 0, 1)]), T_MS + HOUR_MS))

    assert clicks_of(trending) == {id64("a"): 1, id64("b"): 1}


def test_time_that_passes_without_clicks_ends_the_window() -> None:
    trending = Trending(window_ms=24 * HOUR_MS)
    trending.fold(a_record(a_batch(0, 0, [("a", 0, 0, 1)])))
    tick = LabelBatch(first_offset=1, source_offset=1, watermark_ms=T_MS + 24 * HOUR_MS)

    trending.fold(a_record(tick))

    assert clicks_of(trending) == {}


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"\xff", "is not a LabelBatch"),
        (LabelBatch(item_id=[0]).SerializeToString(), "columns of different lengths"),
        (
            LabelBatch(
                item_id=[3], impression_time_ms=[1], old_clicked=[0], new_clicked=[1], strings=["a"]
            ).SerializeToString(),
            "points past its 1 strings",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(value: bytes, what: str) -> None:
    record = dataclasses.replace(a_record(LabelBatch()), value=value)

    with pytest.raises(InvalidBatch, match=rf"labels\[0\]@0 .*{what}"):
        Trending(window_ms=HOUR_MS).fold(record)


@pytest.mark.integration
async def test_clicks_in_the_log_become_candidates_and_count_once(
    kafka_topics: str, tmp_path: Path
) -> None:
    items = [f"i{n}" for n in range(8)]
    ones = np.ones(8, np.float32)
    artifact = write_index(tmp_path, "index-1", items, np.eye(8, dtype=np.float32), ones)
    trending = Source(name="trending", min_share=0.5)
    registry, health = CollectorRegistry(), Health(INDEX, ITEMS)
    retrieval = Retrieval(
        Limits("artifacts", sources=Sources(sources=(trending,), fallbacks=())),
        load=Catalog.load,
        health=health,
        metrics_of=Metrics(registry),
    )
    now_ms = time.time_ns() // 1_000_000
    clicks = [a_batch(0, n, [(item, 0, 0, 1)], now_ms) for n, item in enumerate(["i5", "i3", "i3"])]
    producer = EventProducer(kafka_topics)
    value = pointer("retrieval", "champion", artifact)
    await producer.send(topics.MODELS.name, value, key=b"retrieval/champion")
    for batch in (*clicks, clicks[0]):  # as after a crash
        await producer.send(topics.LABELS.name, batch.SerializeToString(), key=b"0")
    running = [
        asyncio.create_task(work)
        for work in followers(
            retrieval,
            kafka_topics,
            now_ms=now_ms,
            health=health,
            metrics_of=Metrics(CollectorRegistry()),
        )
    ]
    asked = retrieval_pb2.RetrieveRequest(k=4)
    try:
        async with asyncio.timeout(20):
            await retrieval.indexed.wait()
            found = await retrieval.retrieve(asked)
            while len(found.item_id) < 2:
                await asyncio.sleep(0.1)
                found = await retrieval.retrieve(asked)
            later = a_batch(0, 3, [("i7", 0, 0, 1)] * 3, now_ms)
            await producer.send(topics.LABELS.name, later.SerializeToString(), key=b"0")
            while "i7" not in found.item_id:
                await asyncio.sleep(0.1)
                found = await retrieval.retrieve(asked)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await producer.flush_and_close()

    assert retrieval.trending is not None
    assert clicks_of(retrieval.trending) == {id64("i7"): 3, id64("i3"): 2, id64("i5"): 1}
    # Two of four places are kept for it.
    assert set(found.item_id) == {"i7", "i3"}
