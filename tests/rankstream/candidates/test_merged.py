"""All sources merged, over the service's own call, against a slow and obvious merge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.neighbour_lists import NeighbourLists
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.errors import InvalidArtifact
from rankstream.pb import events_pb2, retrieval_pb2
from tests.serving_artifacts import pointer, write_index

M = 40
T_MS = 1_800_000_000_000
ITEM_IDS = [f"i{n}" for n in range(M)]
RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(M, 4)).astype(np.float32)
ROWS = np.stack([RNG.permutation(M)[:6] for _ in range(M)]).astype(np.int32)
WEIGHT = -np.sort(-RNG.uniform(0.1, 2.0, ROWS.shape), axis=1).astype(np.float32)
LISTS = NeighbourLists(
    (
        Neighbours("company", ROWS, WEIGHT, last=5, fading=0.9, share=1.0),
        Neighbours("successors", ROWS[::-1].copy(), WEIGHT, last=2, fading=0.5, share=0.7),
    ),
    index_share=0.5,
)


async def a_retrieval(folder: Path, registry: CollectorRegistry) -> Retrieval:
    retrieval = Retrieval(
        Limits("artifacts"),
        load=Catalog.load,
        health=Health(INDEX, ITEMS),
        metrics_of=Metrics(registry),
    )
    popularity = np.arange(M, dtype=np.float32)
    artifact = write_index(folder, "index-1", ITEM_IDS, VECTORS, popularity, LISTS)
    value = pointer("retrieval", "champion", artifact)
    await retrieval.follow_model(Record("models", 0, 0, T_MS, b"retrieval/champion", value))
    return retrieval


async def withdraw(retrieval: Retrieval, item_id: str) -> None:
    item = events_pb2.Item(item_id=item_id, withdrawn=True, updated_ms=T_MS)
    await retrieval.follow_item(
        Record("items", 0, 0, T_MS, item_id.encode(), item.SerializeToString())
    )


def slowly(history: list[int], gone: set[int]) -> dict[int, tuple[float, set[str]]]:
    """Score of every row that a source names, and who names it."""
    query = np.sum([VECTORS[row] for row in history], axis=0)
    sources = {"towers": (0.5, {row: float(VECTORS[row] @ query) for row in range(M)})}
    for table in LISTS.tables:
        named: dict[int, float] = {}
        for place, row in enumerate(list(dict.fromkeys(history))[: table.last]):
            for other, weight in zip(table.rows[row], table.weight[row], strict=True):
                named[int(other)] = named.get(int(other), 0.0) + weight * table.fading**place
        sources[table.name] = (table.share, named)
    found: dict[int, tuple[float, set[str]]] = {}
    for name, (share, scores) in sources.items():
        left = {row: score for row, score in scores.items() if row not in gone}
        least = min(left.values(), default=0.0)
        length = sum((score - least) ** 2 for score in left.values()) ** 0.5 or 1.0
        for row, score in left.items():
            before, who = found.get(row, (0.0, set()))
            found[row] = before + share * (score - least) / length, who | {name}
    return found


def asking(
    history: list[int], excluded: list[int] | None = None, k: int = M
) -> retrieval_pb2.RetrieveRequest:
    return retrieval_pb2.RetrieveRequest(
        k=k,
        recent_items=[id64(ITEM_IDS[row]) for row in history],
        exclude_items=[id64(ITEM_IDS[row]) for row in excluded or []],
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    history=st.lists(st.integers(0, M - 1), min_size=1, max_size=8),
    excluded=st.lists(st.integers(0, M - 1), max_size=8),
    withdrawn=st.sets(st.integers(0, M - 1), max_size=4),
    k=st.integers(1, M),
)
async def test_the_answer_is_that_of_a_slow_merge_of_all_sources(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[int],
    excluded: list[int],
    withdrawn: set[int],
    k: int,
) -> None:
    registry = CollectorRegistry()
    retrieval = await a_retrieval(tmp_path_factory.mktemp("index"), registry)
    for row in withdrawn:
        await withdraw(retrieval, ITEM_IDS[row])

    reply = await retrieval.retrieve(asking(history, excluded, k))

    expected = slowly(history, {*excluded, *withdrawn})
    rows = [ITEM_IDS.index(item_id) for item_id in reply.item_id]
    assert len(rows) == min(k, M - len({*excluded, *withdrawn}))
    assert list(reply.similarity) == pytest.approx([expected[row][0] for row in rows], abs=1e-5)
    ordered = sorted((score for score, _ in expected.values()), reverse=True)
    assert list(reply.similarity) == pytest.approx(ordered[: len(rows)], abs=1e-5)
    named = [
        {name for bit, name in enumerate(reply.source_name) if bits >> bit & 1}
        for bits in reply.named_by
    ]
    assert named == [expected[row][1] for row in rows]
    for name in ("towers", "company", "successors"):
        counted = registry.get_sample_value(
            "rankstream_retrieval_candidates_total", {"source": name}
        )
        assert counted == sum(name in who for who in named)


async def test_the_reply_says_which_sources_there_are(tmp_path: Path) -> None:
    retrieval = await a_retrieval(tmp_path, CollectorRegistry())

    merged = await retrieval.retrieve(asking([3]))
    unknown = await retrieval.retrieve(asking([]))

    names = ["towers", "company", "successors", "popular", "fresh", "trending", "near"]
    assert list(merged.source_name) == names
    assert (merged.source, unknown.source) == ("merged", "popular")
    assert set(unknown.named_by) == {8}


async def test_lists_of_another_item_table_are_refused(tmp_path: Path) -> None:
    lists = NeighbourLists(
        (Neighbours("company", ROWS[:-1], WEIGHT[:-1], last=5, fading=0.9, share=1.0),), 0.5
    )
    artifact = write_index(tmp_path, "short", ITEM_IDS, VECTORS, np.ones(M, np.float32), lists)

    with pytest.raises(InvalidArtifact, match=r"its item table 40 rows"):
        Catalog.load(artifact.uri, artifact.sha256)
