"""Quotas, floors and fallbacks of one catalog's sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.neighbour_lists import NeighbourLists
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval, read_sources
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.contracts.sources import AS_TUNED, Source, Sources
from rankstream.errors import InvalidRequest, InvalidSettings
from rankstream.pb import events_pb2, filter_pb2, retrieval_pb2
from tests.serving_artifacts import pointer, write_index

T_MS = 1_800_000_000_000
M = 40
ITEM_IDS = [f"i{n:02}" for n in range(M)]
# Item 0 is like 1, 2, ... in this order; the least liked are like it most.
ANGLE = np.linspace(0, np.pi, M)
VECTORS = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1).astype(np.float32)
LIKES = np.arange(M, dtype=np.float32)
# The only neighbour of 0 is 20.
ROWS = np.full((M, 1), -1, np.int32)
ROWS[0] = 20
COMPANY = Neighbours("company", ROWS, (ROWS >= 0).astype(np.float32), last=5, fading=0.9, share=1.0)

HERE = filter_pb2.Place(latitude=48.0, longitude=11.0)


class Shop:
    """A retrieval with its metrics."""

    def __init__(self, sources: Sources) -> None:
        self.registry = CollectorRegistry()
        self.retrieval = Retrieval(
            Limits("artifacts", sources=sources),
            load=Catalog.load,
            health=Health(INDEX, ITEMS),
            metrics_of=Metrics(self.registry),
        )

    async def opened(self, folder: Path, *fresh: str) -> Shop:
        artifact = write_index(
            folder, "index-1", ITEM_IDS, VECTORS, LIKES, NeighbourLists((COMPANY,), 0.5)
        )
        value = pointer("retrieval", "champion", artifact)
        await self.retrieval.follow_model(
            Record("models", 0, 0, T_MS, b"retrieval/champion", value)
        )
        for item_id in fresh:
            item = events_pb2.Item(item_id=item_id, updated_ms=T_MS)
            record = Record("items", 0, 0, T_MS, item_id.encode(), item.SerializeToString())
            await self.retrieval.follow_item(record)
        return self

    async def put(self, item_id: str, north: float, *, withdrawn: bool = False) -> None:
        """An item so many degrees north of HERE."""
        item = events_pb2.Item(item_id=item_id, updated_ms=T_MS, withdrawn=withdrawn)
        item.attributes.update({"latitude": HERE.latitude + north, "longitude": HERE.longitude})
        record = Record("items", 0, 0, T_MS, item_id.encode(), item.SerializeToString())
        await self.retrieval.follow_item(record)

    async def named(
        self, history: list[str], k: int, *only: str, place: filter_pb2.Place | None = None
    ) -> dict[str, set[str]]:
        """Items in their order, and who named each."""
        reply = await self.retrieval.retrieve(
            retrieval_pb2.RetrieveRequest(
                k=k,
                recent_items=[id64(item_id) for item_id in history],
                exclude_item_ids=history,
                filter=filter_pb2.ItemFilter(item_ids=only),
                place=place,
            )
        )
        return {
            item_id: {n for bit, n in enumerate(reply.source_name) if bits >> bit & 1}
            for item_id, bits in zip(reply.item_id, reply.named_by, strict=True)
        }

    def counted(self, metric: str, source: str) -> float | None:
        name = f"rankstream_retrieval_{metric}_total"
        return self.registry.get_sample_value(name, {"source": source})


async def test_a_source_has_its_share_and_the_rest_is_the_best_of_the_others(
    tmp_path: Path,
) -> None:
    sources = Sources(
        sources=(Source(name="towers"), Source(name="popular", min_share=0.2)), fallbacks=()
    )
    shop = await Shop(sources).opened(tmp_path)

    named = await shop.named(["i00"], 10)

    assert named == {f"i{n:02}": {"towers"} for n in range(1, 9)} | {
        # The towers know them as well, but not as their best.
        "i38": {"towers", "popular"},
        "i39": {"towers", "popular"},
    }
    assert shop.counted("candidates", "popular") == 2


async def test_a_source_names_no_more_than_its_share(tmp_path: Path) -> None:
    sources = Sources(
        sources=(
            Source(name="towers", max_share=0.5),
            Source(name="popular", weight=0.001),
        )
    )
    shop = await Shop(sources).opened(tmp_path)

    named = await shop.named(["i00"], 10)

    assert [item_id for item_id, who in named.items() if "towers" in who] == list(named)[:5]
    assert list(named)[5:] == ["i39", "i38", "i37", "i36", "i35"]


async def test_a_source_under_its_floor_is_dropped_and_counted(tmp_path: Path) -> None:
    sources = Sources(
        sources=(Source(name="towers"), Source(name="company", floor=1.5)), fallbacks=()
    )
    passing = Sources(
        sources=(Source(name="towers"), Source(name="company", floor=1.0)), fallbacks=()
    )
    shop = await Shop(sources).opened(tmp_path / "dropped")
    other = await Shop(passing).opened(tmp_path / "passing")

    dropped, kept = await shop.named(["i00"], 3), await other.named(["i00"], 3)

    assert (list(dropped), list(kept)) == (["i01", "i02", "i03"], ["i01", "i02", "i03"])
    assert shop.counted("dropped", "company") == 1
    assert other.counted("dropped", "company") == 0
    assert other.counted("candidates", "company") == 0
    assert shop.counted("dropped", "towers") == 0


async def test_what_sources_leave_open_is_filled_by_one_fallback_after_the_other(
    tmp_path: Path,
) -> None:
    sources = Sources(sources=(Source(name="company"),), fallbacks=("fresh", "popular"))
    shop = await Shop(sources).opened(tmp_path, "new-1", "new-2")

    named = await shop.named(["i00"], 5)

    assert named == {
        "i20": {"company"},
        "new-1": {"fresh"},
        "new-2": {"fresh"},
        "i39": {"popular"},
        "i38": {"popular"},
    }
    assert [shop.counted("filled", name) for name in ("fresh", "popular")] == [2, 2]


async def test_fallbacks_name_nothing_twice_and_nothing_that_is_out(tmp_path: Path) -> None:
    sources = Sources(sources=(Source(name="company"),), fallbacks=("popular", "fresh"))
    shop = await Shop(sources).opened(tmp_path, "new-1")

    named = await shop.named(["i00"], 9, "i00", "i20", "i07", "new-1")

    assert list(named) == ["i20", "i07", "new-1"]


async def test_new_items_have_their_share_however_far_away_they_are(tmp_path: Path) -> None:
    sources = Sources(
        sources=(Source(name="towers"), Source(name="fresh", min_share=0.4, max_share=0.4))
    )
    names = [f"new-{n}" for n in range(8)]
    shop = await Shop(sources).opened(tmp_path / "share", *names)
    tuned = await Shop(AS_TUNED).opened(tmp_path / "tuned", *names)

    named, far = await shop.named(["i00"], 5), await tuned.named(["i00"], 5)

    assert [item_id for item_id in named if item_id.startswith("new")] == ["new-0", "new-1"]
    assert named["new-0"] == {"towers", "fresh"}
    # Without vectors of categories they are nowhere.
    assert not any(item_id.startswith("new") for item_id in far)


NEAR = Sources(
    sources=(Source(name="towers"), Source(name="near", min_share=0.5)),
    fallbacks=("near", "popular"),
    near_km=5.0,
)


async def test_the_nearest_items_have_their_share_if_it_is_known_where_the_user_is(
    tmp_path: Path,
) -> None:
    shop = await Shop(NEAR).opened(tmp_path)
    for item_id, north in (("i30", 0.03), ("i31", 0.01), ("i32", 0.02), ("i33", 0.06)):
        await shop.put(item_id, north)
    await shop.put("i34", 0.0, withdrawn=True)

    there, unknown = await shop.named(["i00"], 4, place=HERE), await shop.named(["i00"], 4)

    assert [item_id for item_id, who in there.items() if "near" in who] == ["i31", "i32"]
    assert unknown == {f"i0{n}": {"towers"} for n in range(1, 5)}


async def test_near_items_fill_a_list_nearest_first_and_pass_the_filter(tmp_path: Path) -> None:
    shop = await Shop(NEAR).opened(tmp_path)
    for item_id, north in (("i30", 0.03), ("i31", -0.01), ("i32", 0.02), ("i33", 0.06)):
        await shop.put(item_id, north)

    everywhere = await shop.named([], 5, place=HERE)
    filtered = await shop.named([], 5, "i30", "i31", "i05", place=HERE)

    assert list(everywhere) == ["i31", "i32", "i30", "i39", "i38"]
    assert list(everywhere.values()) == [{"near"}] * 3 + [{"popular"}] * 2
    assert filtered == {"i31": {"near"}, "i30": {"near"}, "i05": {"popular"}}


async def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    shop = await Shop(NEAR).opened(tmp_path)

    with pytest.raises(InvalidRequest, match=r"place\.latitude: .*less than or equal to 90"):
        await shop.named([], 5, place=filter_pb2.Place(latitude=91))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"RETRIEVAL_SOURCES is .*none\.json.*cannot be read"):
        read_sources(str(tmp_path / "none.json"), "RETRIEVAL_SOURCES")
