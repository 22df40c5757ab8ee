"""Training rows: the features of each impression as they were strictly before it, and its label.

Replays a log in event time through the state and the `snapshot` that serve: an impression at t sees
what happened before t and nothing else, its own events least of all. What live serving could not
know either (an event that arrived late) it sees here. Item metadata is what is known at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.features.delays import purchase_delays_ms, purchases_so_far
from pipelines.features.point_in_time import Added, counters_before, ranks
from pipelines.features.rating_tables import fit_rating_tables, ratings_of
from rankstream.attribution import Attribution
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.contracts.ids import id64
from rankstream.contracts.labels import FINAL, LabelChange
from rankstream.errors import InvalidInput
from rankstream.features import spec
from rankstream.features.attributes import ITEM_ATTRIBUTES
from rankstream.features.deltas import Additions, Entity
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ROW,
    ITEM_ROW,
    RECENT,
    USER_ROW,
    Rows,
    empty_rows,
)
from rankstream.features.snapshot import snapshot
from rankstream.features.state import UserStates
from rankstream.sessions import Sessions
from rankstream.stream.intake import Intake, take_in

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]

CHUNK_ROWS: Final = 4_096
_FOREVER_MS: Final = 1 << 62


@dataclass(frozen=True)
class ItemFacts:
    """What is known of an item."""

    category: str
    attributes: Mapping[str, float]
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


NOTHING_KNOWN: Final = ItemFacts("", {})


@dataclass(frozen=True)
class Windows:
    """How labels and sessions are cut, in ms of event time; those of the features service."""

    click_window_ms: int = 1_800_000
    conversion_window_ms: int = 86_400_000
    session_gap_ms: int = 1_800_000
    lateness_ms: int = 600_000


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """n impressions in order of time.

    `features` float32, shape (n, spec.WIDTH); `clicked` uint8, shape (n,); `time_ms` int64, shape
    (n,); `user` and `item` int64, shape (n,), positions in `users` and `items`; `recent` uint64,
    shape (n, RECENT), hashes of the items of the user's last actions, newest first, 0: none;
    `position` int64, shape (n,), where on the page it was, 0 is the top; `purchased` and
    `purchases_come`, shape (n,), as `delays.purchases_so_far` has them.
    """

    features: npt.NDArray[np.float32]
    clicked: npt.NDArray[np.uint8]
    time_ms: Ints
    user: Ints
    item: Ints
    users: tuple[str, ...]
    items: tuple[str, ...]
    recent: npt.NDArray[np.uint64]
    position: Ints
    purchased: npt.NDArray[np.int8]
    purchases_come: npt.NDArray[np.float32]

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
            self.position[rows],
            self.purchased[rows],
            self.purchases_come[rows],
        )


def training_rows(
    columns: EventColumns,
    items: Mapping[str, ItemFacts],
    *,
    until_ms: int,
    windows: Windows,
    known_ms: Callable[[Ints], Ints] = lambda time_ms: time_ms,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingRows:
    """One row per impression whose click window has closed by `until_ms`.

    Args:
        columns: the log, in any order; repeats of an event_id count once.
        items: item_id -> facts; an item that is absent has no category.
        known_ms: times of impressions -> the times, no later, before which events are known to
            their features: what a nightly or hourly refresh would have served.

    Raises: InvalidInput: the log has no such impression.
    """
    events = in_event_time(columns, until_ms=until_ms)
    intake = take_in(columns, events)
    changes, additions = attributed(intake, windows)
    labels = _closed(changes, len(intake.activity), windows, until_ms)
    keys = _Keys([label.key[0] for label in labels], [label.key[2] for label in labels], items)
    time_ms = np.array([label.impression_time_ms for label in labels], np.int64)
    before_ms = known_ms(time_ms)
    assert np.all(before_ms <= time_ms), "features must not know what comes after"
    added = added_to(additions, Entity.ITEM, places(keys.items))
    item_rows = counters_before(ITEM_ROW, keys.item, before_ms, added)
    keys.describe(item_rows)
    added = added_to(additions, Entity.CATEGORY, places(keys.categories))
    category_rows = counters_before(CATEGORY_ROW, keys.category, before_ms, added)
    category_rows[keys.item_category == ""] = empty_rows(1, CATEGORY_ROW)[0]
    context_rows = _contexts_before(labels, before_ms, additions)
    purchased, purchases_come = purchases_so_far(
        purchase_delays_ms(intake.columns, labels),
        until_ms - time_ms,
        windows.conversion_window_ms,
    )
    out = TrainingRows(
        features=np.empty((len(labels), spec.WIDTH), np.float32),
        clicked=np.array([label.new.clicked for label in labels], np.uint8),
        time_ms=time_ms,
        user=keys.user,
        item=keys.item,
        users=keys.users,
        items=keys.items,
        recent=np.zeros((len(labels), RECENT), np.uint64),
        position=np.array([label.position for label in labels], np.int64),
        purchased=purchased,
        purchases_come=purchases_come,
    )
    tables = fit_rating_tables(ratings_of(columns, events))
    hashes = np.array([id64(name) for name in keys.items], np.uint64)
    replay = UserReplay(intake, additions, windows)
    done = 0
    for rows, user_rows in replay.before(keys.users, keys.user, before_ms):
        vectors = snapshot(
            user_rows, item_rows[rows], category_rows[rows], context_rows[rows], time_ms[rows]
        )
        tables.fill(vectors, hashes[keys.item[rows]], user_rows, before_ms[rows])
        out.features[rows] = vectors
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


def attributed(intake: Intake, windows: Windows) -> tuple[list[LabelChange], Additions]:
    """Changes of labels up to their last, and all that counters are to add."""
    attribution = Attribution(
        click_window_ms=windows.click_window_ms,
        conversion_window_ms=windows.conversion_window_ms,
    )
    columns = intake.columns
    found = attribution.fold(
        intake.feedback_columns(
            offsets=np.arange(len(columns)),
            rows=np.zeros(len(columns), np.int64),
            # Every event in its place: the watermark follows event time.
            watermarks_ms=columns.event_time_ms - windows.lateness_ms,
        ),
        _FOREVER_MS,
    )
    return found.changes, intake.additions(found.repeats, found.moved)


def _closed(
    labels: Sequence[LabelChange], events: int, windows: Windows, until_ms: int
) -> list[LabelChange]:
    """Labels whose click window has closed, in order of time."""
    last_ms = until_ms - windows.click_window_ms
    closed = [
        label
        for label in labels
        if label.new.status == FINAL and label.impression_time_ms <= last_ms
    ]
    if not closed:
        raise InvalidInput(
            f"invalid_input: {events} events until {until_ms} ms hold no impression"
            f" whose click window ({windows.click_window_ms} ms) has closed. No rows were made."
            " Send impressions, or wait for the window."
        )
    return sorted(closed, key=lambda label: (label.impression_time_ms, label.key))


def _contexts_before(labels: Sequence[LabelChange], before_ms: Ints, additions: Additions) -> Rows:
    """CONTEXT_ROW of each label's query and location, shape (n, 2)."""
    out = empty_rows(2 * len(labels), CONTEXT_ROW).reshape(-1, 2)
    for column, entity in enumerate((Entity.QUERY, Entity.LOCATION)):
        names, code = _numbered([label.named[1 + column] for label in labels])
        named = np.flatnonzero(np.array([name != "" for name in names])[code])
        added = added_to(additions, entity, places(names))
        out[named, column] = counters_before(CONTEXT_ROW, code[named], before_ms[named], added)
    return out


def added_to(additions: Additions, entity: Entity, index: Mapping[str, int]) -> Added:
    """Additions to the keys of an entity that `index` numbers."""
    rows, key = additions.keys(entity)
    code = np.array([index.get(text, -1) for text in additions.strings], np.int64)[key]
    known = np.flatnonzero(code >= 0)
    rows = rows[known]
    return Added(code[known], additions.time_ms[rows], additions.amounts[rows])


def describe(rows: Rows, item: Ints, facts: Sequence[ItemFacts]) -> None:
    """Fill in what is known of each row's item; `item`, shape (n,), are places in `facts`."""
    category = np.array([fact.category.encode() for fact in facts], ITEM_ROW["category"])
    attributes = np.array(
        [[fact.attributes.get(name, np.nan) for name in ITEM_ATTRIBUTES] for fact in facts],
        np.float32,
    )
    rows["category"] = category[item]
    rows["attributes"] = attributes[item]


class _Keys:
    """The users, items and categories of the rows, numbered."""

    def __init__(
        self, users: Sequence[str], items: Sequence[str], facts: Mapping[str, ItemFacts]
    ) -> None:
        self.users, self.user = _numbered(users)
        self.items, self.item = _numbered(items)
        self._facts = [facts.get(item, NOTHING_KNOWN) for item in self.items]
        names = [fact.category for fact in self._facts]
        self.categories, code = _numbered(names)
        self.category = code[self.item]
        self.item_category = np.array(names, np.object_)[self.item]

    def describe(self, rows: Rows) -> None:
        """Fill in what is known of each row's item."""
        describe(rows, self.item, self._facts)


def places(names: Sequence[str]) -> dict[str, int]:
    """Where each name stands."""
    return {name: place for place, name in enumerate(names)}


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    index: dict[str, int] = {}
    code = [index.setdefault(name, len(index)) for name in names]
    return tuple(index), np.array(code, np.int64)


class UserReplay:
    """User rows strictly before many moments: wave by wave, as in point_in_time."""

    def __init__(self, intake: Intake, additions: Additions, windows: Windows) -> None:
        self._intake = intake
        self._additions = additions
        self._states = UserStates(0)
        self._sessions = Sessions(gap_ms=windows.session_gap_ms)

    def before(
        self, users: Sequence[str], user: Ints, time_ms: Ints
    ) -> Iterator[tuple[Places, Rows]]:
        """Some places of `user` and their rows, until all were given.

        Args:
            users: ids; `user`, shape (n,), holds their positions; `time_ms`, shape (n,), when.
        """
        columns, intake, additions = self._intake.columns, self._intake, self._additions
        known = places(users)
        code = np.array([known.get(text, -1) for text in additions.strings], np.int64)
        self._row_of = np.full(len(code), -1)
        self._row_of[code >= 0] = np.array(self._states.rows(users), np.int64)[code[code >= 0]]
        # Places of what changes users, whom, and when.
        changing: list[tuple[Places, npt.NDArray[Any], Ints]] = [
            (np.arange(len(additions)), additions.user, additions.time_ms)
        ]
        actions, activity, stated = intake.actions, intake.activity, intake.attributes.row
        for at, rows in (
            (actions, actions),
            (activity, activity),
            (np.arange(len(stated)), stated),
        ):
            changing.append((at, columns.user_id[rows], columns.event_time_ms[rows]))
        rank = np.empty(0, np.int64)
        parts = []
        for rows, who, when in changing:
            asked = np.flatnonzero(code[who] >= 0)
            rank, segment = ranks(user, time_ms, code[who[asked]], when[asked])
            parts.append(_waves(rows[asked], segment, int(rank.max())))
        order = np.argsort(rank, kind="stable")
        waves = np.split(order, np.searchsorted(rank[order], np.arange(2, int(rank.max()) + 1)))
        held: list[Places] = []
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

    def _fold(self, added: Places, actions: Places, activity: Places, stated: Places) -> None:
        states = self._states
        additions = self._additions.take(added)
        states.count(self._row_of[additions.user], additions)
        states.act(self._intake.action_rows(actions, self._row_of))
        active = self._sessions.fold(replace(self._intake, activity=activity).activity_rows())
        states.sessions(states.rows(active), self._sessions.latest(active))
        states.learn(*self._intake.stated(stated, self._row_of))

    def _rows(self, users: Sequence[str]) -> Rows:
        known = dict(self._states.packed(dict.fromkeys(users)))
        return np.frombuffer(b"".join([known[user] for user in users]), USER_ROW).copy()


def _waves(rows: Places, segment: Ints, waves: int) -> list[Places]:
    """`rows` by segment, in order, for segments 0..waves - 1."""
    order = np.argsort(segment, kind="stable")
    ends = np.searchsorted(segment[order], np.arange(waves + 1))
    ordered = rows[order]
    return [ordered[start:end] for start, end in pairwise(ends.tolist())]
