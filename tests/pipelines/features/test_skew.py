"""Skew is counted in features that differ in any bit; replay stops at the stamps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.features.skew import RowsAt, compare, measure, read_tables, sample_slates
from rankstream.adapters.rating_table_file import NAME, write_rating_table
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.ids import id32, id64
from rankstream.features import spec
from rankstream.features.rating_table import FIRST
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, USER_ROW, empty_rows
from rankstream.features.snapshot import snapshot
from rankstream.pb import events_pb2 as pb
from rankstream.stream.partition import FoldSettings
from tests.parity.events import START_MS
from tests.parity.stream import APPEND_MS
from tests.pipelines.features.served_log import ServedLog, a_served_log
from tests.rankstream.features.test_rating_table import a_table

NOW_MS = 1_700_000_000_000


def a_slate(**fields: object) -> tuple[pb.ServedSlate, RowsAt]:
    """A slate of two items, and the rows that it was made from."""
    user, item, category = (empty_rows(1, dtype) for dtype in (USER_ROW, ITEM_ROW, CATEGORY_ROW))
    user["totals"][0, 0] = 5
    item["totals"][0, :2] = 9, 4
    described = item.copy()
    described["category"], described["attributes"] = b"war", [[1995.0, np.nan]]
    items = np.concatenate([described, empty_rows(1, ITEM_ROW)])
    categories = np.concatenate([category, empty_rows(1, CATEGORY_ROW)])
    query, location = empty_rows(1, CONTEXT_ROW), empty_rows(1, CONTEXT_ROW)
    query["totals"][0, :2] = 8, 1
    now = np.array([NOW_MS])
    slate = pb.ServedSlate(
        request_id="r1",
        user_id="u",
        served_time_ms=NOW_MS,
        item_id=["i", "unknown"],
        category=["war", ""],
        features=snapshot(user, items, categories, np.stack([query, location], 1), now)
        .astype("<f4")
        .tobytes(),
        spec_id=spec.SPEC_ID,
        user_stamp=pb.Stamp(partition=1, offset=7, items_offset=-1),
        item_stamp=[
            pb.Stamp(partition=2, offset=3, items_offset=4),
            pb.Stamp(offset=-1, items_offset=-1),
        ],
        category_stamp=[
            pb.Stamp(partition=0, offset=2, items_offset=-1),
            pb.Stamp(offset=-1, items_offset=-1),
        ],
        query="films",
        query_stamp=pb.Stamp(partition=1, offset=6, items_offset=-1),
        location_stamp=pb.Stamp(offset=-1, items_offset=-1),
    )
    for name, value in fields.items():
        setattr(slate, name, value)
    rows = RowsAt(
        users={(1, 7, "u"): user},
        items={(2, 3, "i"): item},
        categories={(0, 2, "war"): category},
        queries={(1, 6, "films"): query},
        locations={},
        described={(2, 4): pb.Item(item_id="i", category="war", attributes={"year": 1995.0})},
    )
    return slate, rows


def test_features_that_the_log_gives_again_are_no_skew() -> None:
    slate, rows = a_slate()

    found = compare([slate], rows)

    assert (found.slates, found.items, found.features) == (1, 2, 2 * spec.WIDTH)
    assert (found.skewed_features, found.skewed_slates, found.unverifiable) == (0, 0, 0)


def test_one_bit_of_one_feature_is_skew() -> None:
    slate, rows = a_slate()
    served = np.frombuffer(slate.features, "<f4").copy()
    served[spec.WIDTH + 3] = np.nextafter(served[spec.WIDTH + 3], np.float32(9))
    slate.features = served.tobytes()

    found = compare([slate], rows)

    assert (found.skewed_features, found.skewed_slates) == (1, 1)
    (example,) = found.examples
    assert (example.request_id, example.item_id, example.feature) == (
        "r1",
        "unknown",
        spec.NAMES[3],
    )


def test_columns_of_a_rating_table_are_made_again_with_the_table_that_was_used() -> None:
    slate, rows = a_slate(rating_table="index-1")
    table = a_table()
    table = replace(table, item=np.sort(np.append(table.item[1:], np.uint32(id32(id64("i"))))))
    user = rows.users[1, 7, "u"]
    user["rated"][0, 0] = (table.item[3], 5.0)
    vectors = np.frombuffer(slate.features, "<f4").reshape(2, -1).copy()
    table.fill(vectors, np.array([id64(item) for item in slate.item_id], np.uint64), user)
    slate.features = vectors.tobytes()

    known = compare([slate], rows, {"index-1": table})
    other = compare([slate], rows, {"index-1": replace(table, mean=3.0)})
    gone = compare([slate], rows)

    assert (known.skewed_features, known.tableless, known.features) == (0, 0, 2 * spec.WIDTH)
    assert other.skewed_features > 0
    assert (gone.skewed_features, gone.tableless, gone.features) == (0, 1, 2 * FIRST)


def test_tables_are_looked_for_among_the_artefacts(tmp_path: Path) -> None:
    folder = tmp_path / "retrieval" / "index-1"
    folder.mkdir(parents=True)
    write_rating_table(folder / NAME, a_table())
    slates = [pb.ServedSlate(rating_table=name) for name in ("index-1", "gone", "../x", "")]

    assert list(read_tables(slates, tmp_path)) == ["index-1"]
    assert read_tables(slates, None) == {}


def test_a_slate_whose_records_are_gone_is_not_called_right() -> None:
    slate, rows = a_slate()

    gone = compare([slate], replace(rows, users={}))
    unasked = compare([slate], replace(rows, queries={}))
    compacted = compare([slate], replace(rows, described={}))
    other, _ = a_slate(spec_id="another")

    for found in (gone, unasked, compacted, compare([other], rows)):
        assert (found.slates, found.unverifiable) == (0, 1)


def test_the_sample_is_seeded_and_leaves_empty_slates_out() -> None:
    bodies = [
        pb.ServedSlate(request_id=f"r{k}", item_id=["i"] * (k % 2)).SerializeToString()
        for k in range(40)
    ]

    first, second = sample_slates(bodies, 5, seed=1), sample_slates(bodies, 5, seed=1)

    assert first == second
    assert len(first) == 5
    assert len(sample_slates(bodies, 100, seed=1)) == 20


async def measured(
    log: ServedLog, monkeypatch: pytest.MonkeyPatch, settings: FoldSettings
) -> tuple[int, int]:
    """Features that differ, and slates that cannot be verified."""
    monkeypatch.setattr("pipelines.features.skew.LogReader", log.reader)
    found = await measure("unused", 100, seed=1, settings=settings, step=lambda *told: None)
    assert found.slates + found.unverifiable == len(log.slates)
    return found.skewed_features, found.unverifiable


async def test_a_replay_up_to_the_stamps_gives_what_was_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = FoldSettings()
    log = a_served_log(settings)

    found = await measured(log, monkeypatch, settings)

    assert found == (0, 0)
    assert len(log.slates) > 10


async def test_one_bit_served_otherwise_than_replayed_is_skew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = FoldSettings()
    log = a_served_log(settings)
    served = np.frombuffer(log.slates[-1].features, "<u4").copy()
    served[3] ^= 1
    log.slates[-1].features = served.tobytes()

    found = await measured(log, monkeypatch, settings)

    assert found == (1, 0)


@pytest.mark.parametrize("which", ["user", "item", "category", "query", "location", "description"])
async def test_a_stamp_one_record_off_is_skew(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    settings = FoldSettings()
    log = a_served_log(settings)
    slate = log.slates[-1]
    if which in ("user", "query", "location"):
        getattr(slate, f"{which}_stamp").offset -= 1
    elif which == "description":
        slate.item_stamp[0].items_offset -= 1
    else:
        stamp = slate.item_stamp[0] if which == "item" else slate.category_stamp[0]
        stamp.offset -= 1

    skewed, unverifiable = await measured(log, monkeypatch, settings)

    assert skewed > 0
    assert unverifiable == 0


@pytest.mark.parametrize(
    "others",
    [
        FoldSettings(lateness_ms=10_000_000),
        FoldSettings(session_gap_ms=1),
        # Refuses what the first ten minutes hold.
        FoldSettings(limits=TimeLimits(behind_ms_max=APPEND_MS - START_MS - 600_000)),
    ],
)
async def test_settings_other_than_the_streams_are_skew(
    monkeypatch: pytest.MonkeyPatch, others: FoldSettings
) -> None:
    log = a_served_log(FoldSettings())

    skewed, _ = await measured(log, monkeypatch, others)

    assert skewed > 0
