"""KuaiRand as events: the protocol on hand-made files, and the real slice where it is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.datasets.history import NAMESPACE, batches
from pipelines.datasets.kuairand import USER_FACTS, history
from rankstream.contracts.batches import decode_batches
from rankstream.contracts.columns import Kind
from rankstream.contracts.events import Impression, Purchase, Rate, UserUpdate, View
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import assert_sound, events_of, told

START_MS = 1_650_812_741_436
Rows = Sequence[Mapping[str, Any]]


def an_exposure(user: int, video: int, at_ms: int, **fields: int) -> dict[str, int]:
    return {
        "user_id": user,
        "video_id": video,
        "time_ms": START_MS + at_ms,
        "tab": 1,
        "is_click": 0,
        "long_view": 0,
        "play_time_ms": 0,
        "is_rand": 0,
    } | fields


def a_user(user: int, **facts: float | None) -> dict[str, float | None]:
    return {"user_id": user, **dict.fromkeys(USER_FACTS, 0.0), **facts}


def a_video(video: int, **facts: object) -> dict[str, object]:
    return {
        "video_id": video,
        "author_id": 77,
        "video_type": "NORMAL",
        "upload_dt": "2022-04-10",
        "video_duration": 5_000.0,
        "music_type": 9.0,
        "tag": "39",
    } | facts


EXPOSURES = (
    an_exposure(5, 10, 0, is_click=1, long_view=1, play_time_ms=90_000),
    an_exposure(6, 10, 100, play_time_ms=400, tab=0),
    an_exposure(5, 20, 100, is_click=1, play_time_ms=7_000),
)
USERS = (
    a_user(5, register_days=799.0, is_live_streamer=-124.0, onehot_feat4=None),
    a_user(6),
    a_user(7),
)
VIDEOS = (
    a_video(10),
    a_video(20, tag="20,43", video_type="AD"),
    a_video(30, tag=None, music_type=None, video_type="UNKNOWN", video_duration=None),
)
SEQUENCES = (
    {
        "user_id": 5,
        "last_time_ms": START_MS - 1_000_000,
        "watch_seq": [20, 30, 20],
        "long_watch_seq": [10, 30, 20],
    },
    {"user_id": 7, "last_time_ms": START_MS + 5, "watch_seq": [10], "long_watch_seq": []},
)


def a_folder(
    root: Path,
    *,
    exposures: Rows = EXPOSURES,
    users: Rows = USERS,
    videos: Rows = VIDEOS,
    sequences: Rows = SEQUENCES,
) -> Path:
    tables = {
        "impressions": exposures,
        "user_features": users,
        "video_features_basic": videos,
        "user_history_before_20220425": sequences,
    }
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(list(rows)), root / f"{name}.parquet")
    return root


def test_an_exposure_is_an_impression_and_what_followed_once_the_video_was_played(
    tmp_path: Path,
) -> None:
    found = history(a_folder(tmp_path))

    assert told(found) == [
        ("user_update", "5", "", 0),
        ("user_update", "6", "", 100),
        ("impression", "5", "10", 1_000),
        ("impression", "6", "10", 1_100),
        ("impression", "5", "20", 1_100),
        ("view", "6", "10", 2_100),
        ("rate", "6", "10", 2_100),
        ("click", "5", "20", 8_100),
        ("view", "5", "20", 8_100),
        ("rate", "5", "20", 8_100),
        ("click", "5", "10", 61_000),
        ("view", "5", "10", 61_000),
        ("rate", "5", "10", 61_000),
        ("purchase", "5", "10", 61_000),
    ]
    events = events_of(found.columns)
    update, shown, other = events[0], events[2], events[3]
    view, purchase = events[11], events[13]
    assert isinstance(update, UserUpdate)
    assert update.attributes["register_days"] == 799.0
    assert not {"is_live_streamer", "onehot_feat4"} & set(update.attributes)
    assert isinstance(shown, Impression)
    assert (shown.event_time_ms, shown.position, shown.category) == (START_MS, 0, "tag-39")
    assert (shown.location, other.location) == ("tab-1", "tab-0")
    assert isinstance(view, View)
    assert isinstance(purchase, Purchase)
    assert (view.value, purchase.value) == (90_000.0, 0.0)
    assert shown.request_id == view.request_id == purchase.request_id == REQUEST
    # Played: 400 of 5,000 ms, 7 s of 5, 90 s of 5.
    assert [event.value for event in events if isinstance(event, Rate)] == [0.4, 5.0, 5.0]


REQUEST = f"kuairand-5-10-{START_MS}-1"


def test_a_history_is_sound_with_the_sequences_and_without(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)

    assert_sound(history(folder))
    assert_sound(history(folder, with_history=True))


def test_videos_are_items_with_their_first_tag_and_what_is_known(tmp_path: Path) -> None:
    items = history(a_folder(tmp_path)).items

    assert [(i.item_id, i.category, dict(i.attributes)) for i in items] == [
        (
            "10",
            "tag-39",
            {
                "duration_s": 5.0,
                "upload_day": 19092.0,
                "video_type": 0.0,
                "music_type": 9.0,
                "author_id": 77.0,
            },
        ),
        (
            "20",
            "tag-20",
            {
                "duration_s": 5.0,
                "upload_day": 19092.0,
                "video_type": 1.0,
                "music_type": 9.0,
                "author_id": 77.0,
            },
        ),
        ("30", "", {"upload_day": 19092.0, "author_id": 77.0}),
    ]


def test_rows_that_repeat_an_exposure_are_one_with_the_most_of_each_signal(tmp_path: Path) -> None:
    repeated = (
        an_exposure(5, 10, 0, play_time_ms=2_000),
        an_exposure(6, 10, 0),
        an_exposure(5, 10, 0, is_click=1),
        an_exposure(5, 10, 0, tab=2),
    )

    found = history(a_folder(tmp_path, exposures=repeated))

    assert told(found)[2:] == [
        ("impression", "5", "10", 1_000),
        ("impression", "6", "10", 1_000),
        ("impression", "5", "10", 1_000),
        ("click", "5", "10", 3_000),
        ("view", "5", "10", 3_000),
        ("rate", "5", "10", 3_000),
    ]
    assert_sound(found)


def test_ids_name_the_exposure_and_the_shift_changes_times_alone(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    until_ms = 1_790_000_000_000

    one, other = history(folder), history(folder, until_ms=until_ms)

    assert one.columns.event_id == other.columns.event_id
    assert UUID(bytes=one.columns.event_id[32:48]) == uuid5(NAMESPACE, f"{REQUEST}/impression")
    assert other.columns.event_time_ms[-1] == until_ms
    assert len(set((other.columns.event_time_ms - one.columns.event_time_ms).tolist())) == 1


def test_the_sequences_come_before_the_log_a_minute_apart(tmp_path: Path) -> None:
    found = history(a_folder(tmp_path), with_history=True)

    end = START_MS - 1_000_000
    before = [
        (e.kind, e.user_id, getattr(e, "item_id", ""), e.event_time_ms)
        for e in events_of(found.columns)
        if e.event_time_ms < START_MS - 1_000
    ]
    assert before == [
        ("user_update", "5", "", end - 121_000),
        ("impression", "5", "20", end - 120_000),
        ("impression", "5", "30", end - 60_000),
        ("click", "5", "30", end - 59_000),
        ("purchase", "5", "30", end - 59_000),
        ("impression", "5", "20", end),
        ("click", "5", "20", end + 1_000),
        ("purchase", "5", "20", end + 1_000),
        # The log has user 7's last exposure after its own first: two minutes before it, then.
        ("user_update", "7", "", START_MS - 121_000),
        ("impression", "7", "10", START_MS - 120_000),
    ]
    shown = next(e for e in events_of(found.columns) if isinstance(e, Impression))
    assert (shown.request_id, shown.location) == (f"kuairand-5-20-{end - 120_000}-history", "")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"exposures": [*EXPOSURES, an_exposure(5, 10, 9, is_click=2)]}, r"s\.parquet:3: '2': is_"),
        (
            {"exposures": [an_exposure(9, 10, 0)]},
            r"user_features\.parquet:3: there is no row for id 9",
        ),
        ({"exposures": [an_exposure(5, 9, 0)]}, r"basic\.parquet:3: there is no row for id 9"),
        ({"exposures": [an_exposure(5, 10, 0, time_ms=0)]}, r"impressions\.parquet:0: '0': time"),
        ({"exposures": [an_exposure(5, 10, 0, play_time_ms=-1)]}, r":0: '-1': play_time_ms"),
        ({"exposures": [an_exposure(5, 10, 0, tab=-1)]}, r":0: '-1': tab is negative"),
        ({"exposures": [{"user_id": 5}]}, r"impressions\.parquet:0: there is no column video_id"),
        ({"exposures": [*EXPOSURES, {"user_id": 5}]}, r":3: 'None': video_id is missing"),
        ({"users": [*USERS, a_user(5)]}, r"user_features\.parquet:3: '5': the id is there twice"),
        ({"videos": [*VIDEOS, a_video(40, upload_dt="today")]}, r":3: 'today': upload_dt is not a"),
        ({"users": [{"user_id": "x"}]}, r"user_features\.parquet:0: "),
    ],
)
def test_a_malformed_file_is_refused_with_file_row_and_reason(
    tmp_path: Path, files: dict[str, Rows], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        history(a_folder(tmp_path, **files))


def test_an_empty_log_a_torn_file_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    impressions = folder / "impressions.parquet"
    pq.write_table(pq.read_table(impressions).slice(0, 0), impressions)

    with pytest.raises(InvalidInput, match="there are no exposures"):
        history(folder)

    impressions.write_bytes(b"PAR1 torn")
    with pytest.raises(InvalidInput, match=r"impressions\.parquet cannot be read"):
        history(folder)

    impressions.unlink()
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        history(folder)


DATA = os.environ.get("RANKSTREAM_DATA", "")


@pytest.mark.skipif(
    not (DATA and Path(DATA, "kuairand").is_dir()),
    reason="RANKSTREAM_DATA does not name a folder that holds kuairand/",
)
def test_the_real_slice_holds_the_events_that_it_is_said_to_hold() -> None:
    found = history(Path(DATA, "kuairand"))

    columns = found.columns
    assert {Kind(kind).name: n for kind, n in Counter(columns.kind.tolist()).items()} == {
        "IMPRESSION": 166_932,
        "CLICK": 75_409,
        "VIEW": 150_053,
        "RATE": 147_905,
        "PURCHASE": 53_193,
        "USER_UPDATE": 24_076,
    }
    assert len(found.items) == 7_583
    assert (np.diff(columns.event_time_ms) >= 0).all()
    assert len(np.unique(np.frombuffer(columns.event_id, "V16"))) == len(columns)
    read = decode_batches([batch.record for batch in batches(columns, partitions=8)])
    assert not read.invalid
    assert len(read.columns) == len(columns)
