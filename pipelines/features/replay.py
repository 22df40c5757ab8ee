"""Training rows: the features of each impression as they were strictly before it, and its label.

Replays a log in event time through the state and the `snapshot` that serve: an impression at t sees
what happened before t and nothing else, its own events least of all. What live serving could not
know either (an event that arrived late) it sees here. Item metadata is what is known at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from pipelines.features.intake import Intake, addition, take_in
from pipelines.features.point_in_time import Additions, counters_before, ranks
from rankstream.attribution import FINAL, Attribution, LabelChange
from rankstream.contracts.codec import attributes_at
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.errors import InvalidInput
from rankstream.features import spec
from rankstream.features.deltas import Addition
from rankstream.features.rows import (
    CATEGORY_ROW,
    ITEM_ATTRIBUTES,
    ITEM_ROW,
    RECENT,
    USER_ROW,
    Rows,
    empty_rows,
)
from rankstream.features.snapshot import snapshot
from rankstream.features.state import Action, UserStates
from rankstream.sessions import ActivityRow, Sessions

Ints = npt.NDArray[np.int64]
T = TypeVar("T")

CHUNK_ROWS: Final = 4_096
CLOSE_EVERY: Final = 20_000
_FOREVER_MS: Final = 1 << 62


@dataclass(frozen=True)
class ItemFacts:
    """What is known of an item."""

    category: str
    attributes: Mapping[str, float]


@dataclass(frozen=True)
class Windows:
    """How labels and sessions are cut, in ms of event time; those of the features service."""

    click_window_ms: int = 1_800_000
    conversion_window_ms: int = 86_400_000
    session_gap_ms: int = 1_800_000


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """n impressions in order of time.

    `features` float32, shape (n, spec.WIDTH); `clicked` uint8, shape (n,); `time_ms` int64, shape
    (n,); `user` and `item` int64, shape (n,), positions in `users` and `items`; `recent` uint64,
    shape (n, RECENT), hashes of the items of the user's last actions, newest first, 0: none.
    """

    features: npt.NDArray[np.float32]
    clicked: npt.NDArray[np.uint8]
    time_ms: Ints
    user: Ints
    item: Ints
    users: tuple[str, ...]
    items: tuple[str, ...]
    recent: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.clicked)

    def take(self, rows: npt.NDArray[np.intp]) -> TrainingRows:
        """Some of the rows."""
        return TrainingRows(
            self.features[rows],
            self.clicked[rows],
            self.time_ms[rows],
            self.user[rows],
            self.item[rows],
            self.users,
            self.items,
            self.recent[rows],
        )


def training_rows(
    columns: EventColumns,
    items: Mapping[str, ItemFacts],
    *,
    until_ms: int,
    windows: Windows,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingRows:
    """One row per impression whose click window has closed by `until_ms`.

    Args:
        columns: the log, in any order; repeats of an event_id count once.
        items: item_id -> facts; an item that is absent has no category.

    Raises: InvalidInput: the log has no such impression.
    """
    intake = take_in(columns, in_event_time(columns, until_ms=until_ms).tolist())
    labels, counted = _attribute(intake, windows, until_ms)
    additions = [*intake.additions, *counted]
    keys = _Keys([label.key[0] for label in labels], [label.key[2] for label in labels], items)
    time_ms = np.array([label.impression_time_ms for label in labels], np.int64)
    item_rows = counters_before(ITEM_ROW, keys.item, time_ms, keys.amounts(additions, 1))
    keys.describe(item_rows)
    category_rows = counters_before(
        CATEGORY_ROW, keys.category, time_ms, keys.amounts(additions, 2)
    )
    category_rows[keys.item_category == ""] = empty_rows(1, CATEGORY_ROW)[0]
    out = TrainingRows(
        features=np.empty((len(labels), spec.WIDTH), np.float32),
        clicked=np.array([label.new.clicked for label in labels], np.uint8),
        time_ms=time_ms,
        user=keys.user,
        item=keys.item,
        users=keys.users,
        items=keys.items,
        recent=np.zeros((len(labels), RECENT), np.uint64),
    )
    replay = _UserReplay(columns, intake, additions, windows)
    done = 0
    for rows, user_rows in replay.before(keys.users, keys.user, time_ms):
        out.features[rows] = snapshot(
            user_rows, item_rows[rows], category_rows[rows], time_ms[rows]
        )
        out.recent[rows] = user_rows["recent"]["item"]
        done += len(rows)
        progress(done, len(labels))
    return out


def in_event_time(columns: EventColumns, *, until_ms: int) -> npt.NDArray[np.intp]:
    """Rows up to `until_ms` in order of event time, ties as they are; no ticks, no repeats."""
    ids = np.frombuffer(columns.event_id, np.dtype("V16"))
    _, first = np.unique(ids, return_index=True)
    rows: npt.NDArray[np.intp] = np.sort(first)
    rows = rows[(columns.kind[rows] != Kind.TICK) & (columns.event_time_ms[rows] <= until_ms)]
    return rows[np.argsort(columns.event_time_ms[rows], kind="stable")]


def _attribute(
    intake: Intake, windows: Windows, until_ms: int
) -> tuple[list[LabelChange], list[Addition]]:
    """Labels whose click window has closed, in order of time, and what counters are to add."""
    attribution = Attribution(
        click_window_ms=windows.click_window_ms,
        conversion_window_ms=windows.conversion_window_ms,
    )
    labels: list[LabelChange] = []
    counted: list[Addition] = []
    for start in range(0, len(intake.feedback), CLOSE_EVERY):
        part = intake.feedback[start : start + CLOSE_EVERY]
        counted += map(addition, attribution.fold(part, offset=start))
        labels += attribution.close(part[-1][4]).changes
    labels += attribution.close(_FOREVER_MS).changes
    last_ms = until_ms - windows.click_window_ms
    closed = [
        label
        for label in labels
        if label.new.status == FINAL and label.impression_time_ms <= last_ms
    ]
    if not closed:
        raise InvalidInput(
            f"invalid_input: {len(intake.activity)} events until {until_ms} ms hold no impression"
            f" whose click window ({windows.click_window_ms} ms) has closed. No rows were made."
            " Send impressions, or wait for the window."
        )
    return sorted(closed, key=lambda label: (label.impression_time_ms, label.key)), counted


class _Keys:
    """The users, items and categories of the rows, numbered."""

    def __init__(
        self, users: Sequence[str], items: Sequence[str], facts: Mapping[str, ItemFacts]
    ) -> None:
        self.users, self.user = _numbered(users)
        self.items, self.item = _numbered(items)
        self._facts = [facts.get(item, ItemFacts("", {})) for item in self.items]
        names = [fact.category for fact in self._facts]
        self.categories, code = _numbered(names)
        self.category = code[self.item]
        self.item_category = np.array(names, np.object_)[self.item]
        unused: dict[str, int] = {}
        self._index = (
            unused,
            {name: number for number, name in enumerate(self.items)},
            {name: number for number, name in enumerate(self.categories)},
        )

    def amounts(self, additions: Sequence[Addition], place: int) -> Additions:
        """Additions to the items (place 1) or categories (place 2) of the rows."""
        index = self._index[place]
        found = [
            (number, *entry[3:])
            for entry in additions
            if (number := index.get(str(entry[place]))) is not None and entry[1]
        ]
        table = np.array(found, np.int64).reshape(-1, 9)
        return Additions(table[:, 0], table[:, 1:])

    def describe(self, rows: Rows) -> None:
        """Fill in what is known of each row's item."""
        category = np.array([fact.category.encode() for fact in self._facts], ITEM_ROW["category"])
        attributes = np.array(
            [
                [fact.attributes.get(name, np.nan) for name in ITEM_ATTRIBUTES]
                for fact in self._facts
            ],
            np.float32,
        )
        rows["category"] = category[self.item]
        rows["attributes"] = attributes[self.item]


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    index: dict[str, int] = {}
    code = [index.setdefault(name, len(index)) for name in names]
    return tuple(index), np.array(code, np.int64)


class _UserReplay:
    """User rows strictly before many moments: wave by wave, as in point_in_time."""

    def __init__(
        self,
        columns: EventColumns,
        intake: Intake,
        additions: Sequence[Addition],
        windows: Windows,
    ) -> None:
        self._columns = columns
        self._states = UserStates(0)
        self._sessions = Sessions(gap_ms=windows.session_gap_ms)
        times = columns.event_time_ms.tolist()
        updates = [
            (columns.strings[int(columns.user_id[row])], row, times[row])
            for row in intake.updated_users
        ]
        # (what, user, when) of everything that changes a user.
        self._additions = list(additions), [a[0] for a in additions], [a[3] for a in additions]
        actions = intake.actions
        self._actions = actions, [a[0] for a in actions], [a[3] for a in actions]
        activity = intake.activity
        self._activity = activity, [a[0] for a in activity], [a[2] for a in activity]
        self._updates = updates, [u[0] for u in updates], [u[2] for u in updates]

    def before(
        self, users: Sequence[str], user: Ints, time_ms: Ints
    ) -> Iterator[tuple[npt.NDArray[np.intp], Rows]]:
        """Some places of `user` and their rows, until all were given.

        Args:
            users: ids; `user`, shape (n,), holds their positions; `time_ms`, shape (n,), when.
        """
        number = {name: place for place, name in enumerate(users)}
        parts = []
        rank = np.empty(0, np.int64)
        for what, names, when in (self._additions, self._actions, self._activity, self._updates):
            code = np.array([number.get(name, -1) for name in names], np.int64)
            known = np.flatnonzero(code >= 0)
            event_ms = np.array(when, np.int64)[known]
            rank, segment = ranks(user, time_ms, code[known], event_ms)
            parts.append(_waves(what, known, segment, int(rank.max())))
        order = np.argsort(rank, kind="stable")
        waves = np.split(order, np.searchsorted(rank[order], np.arange(2, int(rank.max()) + 1)))
        held: list[npt.NDArray[np.intp]] = []
        packed: list[Rows] = []
        for wave, changes in zip(waves, zip(*parts, strict=True), strict=True):
            self._fold(*changes)
            held.append(wave)
            packed.append(self._rows([users[u] for u in user[wave].tolist()]))
            if sum(map(len, held)) >= CHUNK_ROWS:
                yield np.concatenate(held), np.concatenate(packed)
                held, packed = [], []
        if held:
            yield np.concatenate(held), np.concatenate(packed)

    def _fold(
        self,
        additions: Sequence[Addition],
        actions: Sequence[Action],
        activity: Sequence[ActivityRow],
        updates: Sequence[tuple[str, int, int]],
    ) -> None:
        self._states.count(additions)
        self._states.act(actions)
        self._sessions.fold(activity)
        for user in {entry[0] for entry in activity}:
            latest = self._sessions.latest(user)
            assert latest is not None
            self._states.session(user, latest)
        for user, row, time_ms in updates:
            self._states.learn(user, time_ms, attributes_at(self._columns, row))

    def _rows(self, users: Sequence[str]) -> Rows:
        rows = empty_rows(len(users), USER_ROW)
        known = dict(self._states.packed(dict.fromkeys(users)))
        for place, user in enumerate(users):
            if user in known:
                rows[place] = np.frombuffer(known[user], USER_ROW)[0]
        return rows


def _waves(what: Sequence[T], known: Ints, segment: Ints, waves: int) -> list[list[T]]:
    """`what[known]` by segment, in order, for segments 0..waves - 1."""
    order = np.argsort(segment, kind="stable")
    ends = np.searchsorted(segment[order], np.arange(1, waves + 1))
    chosen = known[order].tolist()
    starts = [0, *ends.tolist()[:-1]]
    return [
        [what[place] for place in chosen[start:end]]
        for start, end in zip(starts, ends.tolist(), strict=True)
    ]
