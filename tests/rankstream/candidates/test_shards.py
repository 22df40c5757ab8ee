"""Any shards of an index give the answer that one process gives that holds all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankstream.adapters.item_table import ItemTable
from rankstream.adapters.neighbour_lists import NeighbourLists
from rankstream.adapters.query_tower import QueryTower
from rankstream.candidates import merging
from rankstream.candidates.answer import Candidates
from rankstream.candidates.catalog import Catalog, Question
from rankstream.candidates.origins import Fresh
from rankstream.candidates.shards import decode, encode, index_id_of, joined
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours, part_of
from rankstream.contracts.shard import Shard
from rankstream.contracts.sources import AS_TUNED, BIT, Source, Sources
from rankstream.contracts.subset import Subset
from rankstream.errors import InvalidArtifact
from rankstream.retrieval import Found
from rankstream.testing import FakeIndex
from tests.serving_artifacts import write_index

M, FRESH, SHARDS = 40, 6, 5
RNG = np.random.default_rng(7)
# Whole numbers: sums of products are exact, and many scores are equal.
VECTORS = RNG.integers(-2, 3, (M, 3)).astype(np.float32)
FRESH_VECTORS = RNG.integers(-2, 3, (FRESH, 3)).astype(np.float32)
LIKES = RNG.integers(0, 9, M).astype(np.float32)
CLICKS = RNG.integers(1, 5, M).astype(np.float32)
CLOSENESS = RNG.integers(1, 5, M).astype(np.float32) / 4
ROWS = np.stack([RNG.permutation(M)[:8] for _ in range(M)]).astype(np.int32)
ROWS[RNG.random(ROWS.shape) < 0.2] = -1
WEIGHT = np.where(ROWS >= 0, RNG.uniform(0.1, 2.0, ROWS.shape), 0).astype(np.float32)
TABLES = (
    Neighbours("company", ROWS, WEIGHT, last=5, fading=0.9, share=1.0),
    Neighbours("successors", ROWS[::-1].copy(), WEIGHT[::-1].copy(), 2, 0.5, share=0.7),
)
LISTS = NeighbourLists(TABLES, index_share=0.5)
ITEM_IDS = tuple(f"i{n}" for n in range(M))
TABLE = ItemTable(ITEM_IDS, np.array([id64(name) for name in ITEM_IDS], np.uint64), LIKES)
CONFIGS = (
    AS_TUNED,
    Sources(
        sources=(
            Source(name="towers", max_share=0.5, floor=1.0),
            Source(name="company", floor=1.5),
            Source(name="successors", weight=0.0, min_share=0.1),
            Source(name="fresh", min_share=0.1, max_share=0.2),
            Source(name="popular", min_share=0.2),
            Source(name="trending", weight=0.3, max_share=0.4),
            Source(name="near", min_share=0.2, floor=0.5),
        ),
        fallbacks=("near", "trending", "fresh", "popular"),
    ),
    Sources(
        sources=(Source(name="company"), Source(name="trending", min_share=0.4, floor=3.0)),
        fallbacks=("fresh",),
    ),
    Sources(
        sources=(Source(name="towers", floor=6.0), Source(name="fresh", floor=2.0)),
        fallbacks=("popular", "trending"),
    ),
)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> QueryTower:
    folder = tmp_path_factory.mktemp("tower")
    write_index(folder, "index-1", list(ITEM_IDS), VECTORS, LIKES)
    return QueryTower.load(folder / "index-1", dimensions=3)


@pytest.fixture(params=[2, 500])
def list_min(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a source is asked for at least: with few items, only a small one cuts lists."""
    monkeypatch.setattr(merging, "LIST_MIN", request.param)


def a_catalog(tower: QueryTower, part: list[int] | None = None, name: str = "index-1") -> Catalog:
    if part is None:
        return Catalog(name, tower, FakeIndex(VECTORS), TABLE, LISTS)
    rows = np.array(part, np.int64)
    tables = tuple(part_of(table, rows, M) for table in TABLES)
    lists = NeighbourLists(tables, LISTS.index_share)
    return Catalog(name, tower, FakeIndex(VECTORS[rows]), TABLE, lists, part=rows)


def a_question(catalog: Catalog, asked: dict[str, Any], fresh: list[int]) -> Question:
    """What a process that holds these items is asked; rows are looked up by id."""

    def here(rows: list[int]) -> tuple[Any, Any]:
        found = catalog.rows(TABLE.id64[np.array(rows, np.int64)])
        return found[found >= 0], found >= 0

    within = None
    if asked["within"] is not None:
        within = Subset(catalog.size, rows=np.sort(here(sorted(asked["within"]))[0]))
    near, there = here(asked["near"])
    clicked = np.array(asked["clicked"], np.int64)
    return Question(
        TABLE.id64[np.array(asked["history"], np.int64)],
        asked["k"],
        here(asked["excluded"])[0],
        within,
        Fresh([f"new-{n}" for n in fresh], FRESH_VECTORS[fresh]),
        asked["config"],
        catalog.ranked(TABLE.id64[clicked], CLICKS[clicked]),
        Found(near, CLOSENESS[np.array(asked["near"], np.int64)[there]]),
    )


def shown(candidates: Candidates) -> list[tuple[str, float, int]]:
    """Items, scores and sources; which of the new items of one score comes first is open."""
    return [
        ("new" if item_id.startswith("new") else item_id, score, bits)
        for item_id, score, bits in zip(
            candidates.item_ids,
            candidates.similarity.tolist(),
            candidates.named_by.tolist(),
            strict=True,
        )
    ]


rows = st.lists(st.integers(0, M - 1), max_size=8)
asking = st.fixed_dictionaries(
    {
        "history": rows,
        "k": st.integers(1, M + FRESH),
        "excluded": rows,
        "within": st.none() | st.sets(st.integers(0, M - 1), max_size=20),
        "near": st.lists(st.integers(0, M - 1), unique=True, max_size=20).map(sorted),
        "clicked": st.lists(st.integers(0, M - 1), unique=True, max_size=20),
        "config": st.sampled_from(CONFIGS),
    }
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(
    asked=asking,
    of=st.lists(st.integers(0, SHARDS), min_size=M, max_size=M).filter(lambda of: min(of) < SHARDS),
    fresh_of=st.lists(st.integers(0, SHARDS - 1), max_size=FRESH),
)
def test_the_answer_of_any_shards_is_that_of_one_that_holds_their_items(
    tower: QueryTower, list_min: None, asked: dict[str, Any], of: list[int], fresh_of: list[int]
) -> None:
    # What would be in shard number SHARDS is of one that did not answer.
    one = a_catalog(tower, [row for row in range(M) if of[row] < SHARDS])
    there = sorted({*of} - {SHARDS})
    parts = []
    for number in there:
        shard = a_catalog(tower, [row for row in range(M) if of[row] == number])
        fresh = [n for n, at in enumerate(fresh_of) if there[at % len(there)] == number]
        found = shard.found(a_question(shard, asked, fresh))
        parts.append(decode(encode(found, Shard(number, SHARDS), b"")))

    answer = joined(parts, asked["config"], asked["k"])

    expected = one.retrieve(a_question(one, asked, list(range(len(fresh_of)))))
    assert shown(answer) == shown(expected)
    assert (answer.degraded, answer.source) == (expected.degraded, expected.source)
    assert (answer.dropped, answer.filled) == (expected.dropped, expected.filled)
    assert len(set(answer.item_ids)) == len(answer.item_ids)


@pytest.mark.parametrize("share", [None, 0.5, 0.05])
def test_shards_of_an_exact_index_give_the_same_bits(tmp_path: Path, share: float | None) -> None:
    rng = np.random.default_rng(3)
    m = 3_000
    vectors = rng.normal(size=(m, 16)).astype(np.float32)
    lists = rng.integers(0, m, (m, 700)).astype(np.int32)
    weight = rng.uniform(0.1, 1.0, lists.shape).astype(np.float32)
    names = [f"i{n}" for n in range(m)]
    artifact = write_index(
        tmp_path,
        "index-1",
        names,
        vectors,
        rng.normal(size=m).astype(np.float32),
        NeighbourLists((Neighbours("company", lists, weight, 5, 0.9, share=1.0),), 0.5),
    )
    whole = Catalog.load(artifact.uri, artifact.sha256)
    shards = [Catalog.load(artifact.uri, artifact.sha256, Shard(n, 3)) for n in range(3)]
    passing = [name for name in names if share is None or rng.random() < share]
    fresh = rng.normal(size=(7, 16)).astype(np.float32)

    for history in (names[:1], names[5:25], ["unknown"], []):
        # Of a history of one item only one shard has something to exclude.
        recent = np.array([id64(name) for name in history], np.uint64)

        def asking(catalog: Catalog, new: slice, recent: Any = recent) -> Question:
            within = None
            if share is not None:
                within = Subset(catalog.size, rows=np.sort(catalog.rows_of_ids(passing)))
            new_items = Fresh([f"new-{n}" for n in range(7)][new], fresh[new])
            return Question(recent, 500, catalog.rows(recent), within, new_items)

        thirds = (slice(0, 2), slice(2, 3), slice(3, 7))
        found = [shard.found(asking(shard, new)) for shard, new in zip(shards, thirds, strict=True)]
        answer = joined(found, AS_TUNED, 500)

        expected = whole.retrieve(asking(whole, slice(0, 7)))
        assert shown(answer) == shown(expected)
        assert answer.similarity.tobytes() == expected.similarity.tobytes()
    assert sum(shard.size for shard in shards) == m


def test_while_one_shard_has_another_index_both_are_named_and_scaled_apart(
    tower: QueryTower,
) -> None:
    even, odd = (a_catalog(tower, list(range(first, M, 2))) for first in range(2))
    # The other index scores ten times as high.
    louder = Catalog(
        "index-2", tower, FakeIndex(VECTORS[1::2] * 10), TABLE, part=np.arange(1, M, 2)
    )
    asked = {"history": [3], "k": 20, "excluded": [3], "within": None, "near": [], "clicked": []}
    config = Sources(sources=(Source(name="towers"),), fallbacks=())
    found, other, loud = (
        catalog.found(a_question(catalog, asked | {"config": config}, []))
        for catalog in (even, odd, louder)
    )

    same, mixed = joined([found, other], config, 20), joined([found, loud], config, 20)

    assert index_id_of([found, other]) == "index-1"
    assert index_id_of([found, loud]) == "index-1+index-2"
    assert len(mixed.item_ids) == len(set(mixed.item_ids)) == 20
    assert {item_id[-1] in "02468" for item_id in mixed.item_ids[:10]} == {True, False}
    assert set(mixed.item_ids[:5]) & set(same.item_ids[:5])


def test_quotas_are_shared_by_indexes(tower: QueryTower) -> None:
    config = Sources(
        sources=(Source(name="towers", max_share=0.5), Source(name="popular", min_share=0.5)),
        fallbacks=(),
    )
    asked = {"history": [3], "k": 20, "excluded": [], "within": None, "near": [], "clicked": []}
    catalogs = [
        a_catalog(tower, list(range(first, M, 2)), name)
        for first, name in enumerate(("index-1", "index-2"))
    ]

    parts = [
        catalog.found(a_question(catalog, asked | {"config": config}, [])) for catalog in catalogs
    ]
    answer = joined(parts, config, 20)

    of = {name: answer.named_by & BIT[name] > 0 for name in ("towers", "popular")}
    assert of["towers"].sum() <= 10
    assert of["popular"].sum() >= 10


def test_a_shard_without_an_item_is_refused_by_name(tmp_path: Path) -> None:
    artifact = write_index(tmp_path, "index-1", ["a"], VECTORS[:1], LIKES[:1])
    empty = 1 - id64("a") % 2

    with pytest.raises(InvalidArtifact, match=rf"has 1 items, and shard {empty} of 2 holds none"):
        Catalog.load(artifact.uri, artifact.sha256, Shard(empty, 2))


def test_an_answer_that_is_full_anyway_comes_without_fallbacks(tower: QueryTower) -> None:
    catalog = a_catalog(tower, list(range(M // 2)))
    asked = {"history": [3], "excluded": [], "within": None, "near": [], "clicked": []}

    full, short = (
        catalog.found(a_question(catalog, asked | {"k": k, "config": AS_TUNED}, []))
        for k in (M // 2, M)
    )
    unknown = catalog.found(
        a_question(catalog, asked | {"k": 3, "config": AS_TUNED, "history": []}, [])
    )

    assert (full.fallbacks, short.fallbacks) == ([], [])  # the other has all that there is
    assert [raw.name for raw in unknown.fallbacks] == ["popular"]
