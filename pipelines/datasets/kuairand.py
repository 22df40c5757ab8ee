"""KuaiRand-Pure, the log of a short-video app, as our events in event time.

Protocol
- A row is an exposure: an impression at its `time_ms`, in position 0 because the log has none.
  `location` is `tab-<tab>`, the part of the app where the video was shown.
- What the user did is known once the video was played, never at the impression: events of feedback
  come min(play time, 60 s) later, and at least one second.
- `is_click` (the log's valid play) is a click. `long_view` is a purchase of value 0: the log's
  conversion, no money changed hands; 169 rows have one without a click, and keep it. A play time
  over 0 is a view whose value is the time in ms, and of a video of known length a rating: 5 times
  the share that was played, 5 at most.
- Rows that share user, video, time and tab are one exposure: in the slice of 25 April to 4 May 2022
  these are 4,739 of 171,671 rows. Seven of these groups disagree on what happened (one on the
  click): the most of each signal counts.
- Request ids name user, video, time and tab; event ids are UUIDv5 of the request id and the kind.
- A user update one second before the user's first event holds the numeric columns of
  `user_features`; text columns are bands of the same numbers, and -124 (unknown) is left out.
- The category of a video is the first of its tags, and all are its tags. Its attribute
  `upload_day` counts days since 1970 in the log's calendar, also in a shifted history.
- Not used: likes, follows, comments, forwards, hates and stays, which have no event of ours.

With history, each user's last exposures before the log (`watch_seq`: at most 50, in order) come
first. Their time stamps are INVENTED: one a minute, up to the user's `last_time_ms` or to two
minutes before the log, whichever is earlier. An entry that is also in `long_watch_seq` is a click
and a purchase a second later; repeats are matched from the newest back. Valid plays that were not
long are not in the file, so clicks of this part are too few. 99,433 of 390,929 long-watched entries
are older than the 50 exposures and are dropped: nothing says what was shown beside them.

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos",
CIKM 2022; CC BY-SA 4.0. The slice takes 4 s and 0.3 GB, with history 10 s and 0.8 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.history import History
from pipelines.datasets.log import Facts, Floats, Log, Part, as_history
from pipelines.datasets.tables import (
    REAL,
    TEXT,
    TIME_MS_MAX,
    WHOLE,
    joined,
    numbered,
    numbers,
    read_parquet,
    refusal,
    require,
    whole,
)
from rankstream.contracts.columns import VALUE_MAX, Ints, Kind

FEEDBACK_DELAY_MS: Final = (1_000, 60_000)
RATING_MAX: Final = 5.0
HISTORY_STEP_MS: Final = 60_000
BEFORE_LOG_MS: Final = 120_000
HISTORY_TAB: Final = -1
UNKNOWN: Final = -124
_FLAGS: Final = ("is_click", "long_view")
_IMPRESSIONS: Final = dict.fromkeys(
    ("user_id", "video_id", "time_ms", "tab", "play_time_ms", *_FLAGS), WHOLE
)
USER_FACTS: Final = (
    "register_days",
    "follow_user_num",
    "fans_user_num",
    "friend_user_num",
    "is_live_streamer",
    "is_video_author",
    *(f"onehot_feat{k}" for k in range(18)),
)
VIDEO_FACTS: Final = ("duration_s", "upload_day", "video_type", "music_type", "author_id")
VIDEO_TYPES: Final[Mapping[str, float]] = {"NORMAL": 0.0, "AD": 1.0}
_VIDEOS: Final = {
    "video_id": WHOLE,
    "author_id": WHOLE,
    "video_type": TEXT,
    "upload_dt": TEXT,
    "video_duration": REAL,
    "music_type": REAL,
    "tag": TEXT,
}
_SEQUENCES: Final = {
    "user_id": WHOLE,
    "last_time_ms": WHOLE,
    "watch_seq": pa.list_(WHOLE),
    "long_watch_seq": pa.list_(WHOLE),
}


@dataclass(frozen=True, eq=False)
class Exposures:
    """n exposures in order of time, int64, shape (n,) each.

    `user` and `video` are ids of the log; `clicked` and `long_viewed` 0 or 1; `play_ms` 0: not
    played; `tab` HISTORY_TAB: of the history, at an invented time.
    """

    user: Ints
    video: Ints
    time_ms: Ints
    tab: Ints
    clicked: Ints
    long_viewed: Ints
    play_ms: Ints

    def __len__(self) -> int:
        return len(self.user)


def history(folder: Path, *, until_ms: int | None = None, with_history: bool = False) -> History:
    """The log's exposures as events, and its videos.

    Args:
        folder: holds impressions.parquet, user_features.parquet, video_features_basic.parquet and,
            with history, user_history_before_20220425.parquet.
        until_ms: the last event is shifted there; None keeps the times of the log.

    Raises: InvalidInput naming file, row and reason; nothing is read.
    """
    found = read_exposures(folder / "impressions.parquet")
    if with_history:
        before_ms = int(found.time_ms[0]) - BEFORE_LOG_MS
        path = folder / "user_history_before_20220425.parquet"
        # The history ends before the log begins, so the order of time is that of the parts.
        found = _after(read_sequences(path, before_ms=before_ms), found)
    user_ids, user_facts = _users(folder / "user_features.parquet", found.user)
    log = _log(folder / "video_features_basic.parquet", found, user_ids, user_facts)
    length_ms = log.item_facts.numbers[log.item, VIDEO_FACTS.index("duration_s")] * 1_000
    return as_history(log, _parts(found, length_ms), until_ms=until_ms)


def _parts(found: Exposures, length_ms: Floats) -> list[Part]:
    """`length_ms`, shape (n,), of the exposed videos; nan: unknown."""
    everyone = np.arange(len(found))
    clicks, longs, plays = (
        np.flatnonzero(signal) for signal in (found.clicked, found.long_viewed, found.play_ms)
    )
    rated = np.flatnonzero((found.play_ms > 0) & (length_ms > 0))
    rating = RATING_MAX * np.minimum(found.play_ms[rated] / length_ms[rated], 1.0)
    then = found.time_ms + np.clip(found.play_ms, *FEEDBACK_DELAY_MS)
    return [
        Part(Kind.IMPRESSION, everyone, found.time_ms),
        Part(Kind.CLICK, clicks, then[clicks]),
        Part(Kind.VIEW, plays, then[plays], found.play_ms[plays].astype(np.float64)),
        Part(Kind.RATE, rated, then[rated], rating, named=False),
        Part(Kind.PURCHASE, longs, then[longs]),
    ]


def read_exposures(path: Path) -> Exposures:
    """impressions.parquet, exact repeats of an exposure as one.

    Raises: InvalidInput naming file, row and reason.
    """
    table = read_parquet(path, _IMPRESSIONS, blank=())
    column = {name: whole(table[name]) for name in _IMPRESSIONS}
    time_ms, play_ms = column["time_ms"], column["play_time_ms"]
    require(path, np.full(1, len(time_ms) > 0), np.zeros(1), "there are no exposures", first=0)
    require(path, (time_ms > 0) & (time_ms < TIME_MS_MAX), time_ms, "time_ms", first=0)
    require(path, (play_ms >= 0) & (play_ms <= VALUE_MAX), play_ms, "play_time_ms", first=0)
    require(path, column["tab"] >= 0, column["tab"], "tab is negative", first=0)
    for name in _FLAGS:
        require(path, (column[name] | 1) == 1, column[name], f"{name} is not 0 or 1", first=0)
    order = np.lexsort((column["tab"], column["video_id"], column["user_id"], time_ms))
    sorted_ = {name: values[order] for name, values in column.items()}
    keys = np.stack([sorted_[name] for name in ("time_ms", "user_id", "video_id", "tab")])
    first = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    # Rows of one millisecond keep the order of the file.
    place = np.minimum.reduceat(order, first)
    most = [np.maximum.reduceat(sorted_[name], first) for name in (*_FLAGS, "play_time_ms")]
    by_time = np.lexsort((place, keys[0, first]))
    time, user, video, tab = (key[first][by_time] for key in keys)
    clicked, long_viewed, play = (signal[by_time] for signal in most)
    return Exposures(user, video, time, tab, clicked, long_viewed, play)


def read_sequences(path: Path, *, before_ms: int) -> Exposures:
    """The exposures before the log, at invented times of which none is after `before_ms`.

    Raises: InvalidInput naming file, row and reason.
    """
    table = read_parquet(path, _SEQUENCES, blank=())
    last_ms = whole(table["last_time_ms"])
    require(path, (last_ms > 0) & (last_ms < TIME_MS_MAX), last_ms, "last_time_ms", first=0)
    watched = table["watch_seq"].combine_chunks()
    length = pc.list_value_length(watched).to_numpy().astype(np.int64)
    owner = np.repeat(np.arange(len(length)), length)
    left = np.repeat(np.cumsum(length), length) - 1 - np.arange(len(owner))
    end_ms = np.minimum(last_ms, before_ms)
    time_ms = end_ms[owner] - left * HISTORY_STEP_MS
    require(path, time_ms > 0, last_ms[owner], "last_time_ms is too near to 1970", first=0)
    longs = np.concatenate(
        [
            _matched(seen, long)
            for seen, long in zip(
                watched.to_pylist(), table["long_watch_seq"].to_pylist(), strict=True
            )
        ]
        or [np.zeros(0, np.int64)]
    )
    order = np.argsort(time_ms, kind="stable")
    user, video = whole(table["user_id"])[owner], whole(pc.list_flatten(watched))
    n = len(order)
    return Exposures(
        user[order],
        video[order],
        time_ms[order],
        np.full(n, HISTORY_TAB),
        longs[order],
        longs[order],
        np.zeros(n, np.int64),
    )


def _matched(seen: list[int], longs: list[int]) -> Ints:
    """1 where an exposure is the long-watched one, both in order and matched from the newest."""
    found = np.zeros(len(seen), np.int64)
    left = len(longs) - 1
    for place in range(len(seen) - 1, -1, -1):
        if left >= 0 and seen[place] == longs[left]:
            found[place] = 1
            left -= 1
    return found


def _after(first: Exposures, then: Exposures) -> Exposures:
    names = ("user", "video", "time_ms", "tab", "clicked", "long_viewed", "play_ms")
    return Exposures(*(np.concatenate([getattr(first, n), getattr(then, n)]) for n in names))


def _users(path: Path, user: Ints) -> tuple[Ints, Facts]:
    """Ids in the file's order, and what is known of each.

    Raises: InvalidInput: an id is there twice, or one of `user`, shape (n,), is not.
    """
    types = {"user_id": WHOLE, **dict.fromkeys(USER_FACTS, REAL)}
    table = read_parquet(path, types, blank=USER_FACTS)
    facts = np.stack([numbers(table[name]) for name in USER_FACTS], axis=1)
    facts[facts == UNKNOWN] = np.nan
    return _known(path, table["user_id"], user), Facts(USER_FACTS, facts)


def _known(path: Path, column: pa.ChunkedArray, asked: Ints) -> Ints:
    """The ids of the file, each there once and all of `asked`, shape (n,), among them."""
    ids = whole(column)
    _, first = np.unique(ids, return_index=True)
    once = np.zeros(len(ids), bool)
    once[first] = True
    require(path, once, ids, "the id is there twice", first=0)
    unknown = asked[~np.isin(asked, ids)]
    if len(unknown):
        raise refusal(path, len(ids), f"there is no row for id {unknown[0]}, which has an exposure")
    return ids


def _place(ids: Ints, asked: Ints) -> Ints:
    """Where each of `asked` stands in `ids`, which has all of them."""
    order = np.argsort(ids)
    found: Ints = order[np.searchsorted(ids, asked, sorter=order)]
    return found


def _log(path: Path, found: Exposures, user_ids: Ints, user_facts: Facts) -> Log:
    table = read_parquet(path, _VIDEOS, blank=tuple(_VIDEOS)[1:])
    video_ids = _known(path, table["video_id"], found.video)
    tag = pc.list_element(pc.split_pattern(pc.fill_null(table["tag"], ""), ","), 0)
    tags, tag_of = numbered(tag)
    where, location = numbered(pa.array(found.tab))
    category = np.where(np.array([bool(t) for t in tags], bool)[tag_of], tag_of, -1)
    requests = _requests(found)
    return Log(
        users=[str(user) for user in user_ids.tolist()],
        items=[str(video) for video in video_ids.tolist()],
        user=_place(user_ids, found.user),
        item=_place(video_ids, found.video),
        names=requests,
        requests=requests,
        request=np.arange(len(found)),
        position=np.zeros(len(found), np.int32),
        category=category,
        location=np.where(found.tab == HISTORY_TAB, -1, location),
        categories=[f"tag-{t}" for t in tags],
        tags=[
            tuple(f"tag-{t}" for t in listed.split(",") if t)
            for listed in pc.fill_null(table["tag"], "").to_pylist()
        ],
        locations=[f"tab-{t}" for t in where],
        user_facts=user_facts,
        item_facts=Facts(VIDEO_FACTS, _video_facts(path, table)),
    )


def _requests(found: Exposures) -> pa.LargeStringArray:
    tab = pa.array(found.tab).cast(pa.large_string())
    tab = pc.if_else(pa.array(found.tab == HISTORY_TAB), "history", tab)
    return joined("kuairand", found.user, found.video, found.time_ms, tab)


def _video_facts(path: Path, table: pa.Table) -> Floats:
    """float64, shape (videos, len(VIDEO_FACTS)), nan: unknown."""
    day = pc.strptime(table["upload_dt"], format="%Y-%m-%d", unit="s", error_is_null=True)
    fits = pc.equal(pc.is_null(day), pc.is_null(table["upload_dt"])).to_numpy()
    require(path, fits, table["upload_dt"], "upload_dt is not a date", first=0)
    types = [VIDEO_TYPES.get(name, np.nan) for name in table["video_type"].to_pylist()]
    return np.stack(
        [
            numbers(table["video_duration"]) / 1000,
            numbers(day.cast(WHOLE)) // 86_400,
            np.array(types, np.float64),
            numbers(table["music_type"]),
            numbers(table["author_id"]),
        ],
        axis=1,
    )
