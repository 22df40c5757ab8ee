"""A public log by row, and its rows as events: what every adapter shares.

An adapter reads files into a `Log` and says which events its rows become; the order of time, event
ids, user updates, the shift and the columns are made here, once. Text that differs from row to row
stays packed, so a row costs bytes and no objects; an event costs about 80 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.datasets.history import History, HistoryItem, event_ids
from rankstream.contracts.columns import FEEDBACK_KINDS, EventColumns, Ints, Kind

Floats = npt.NDArray[np.float64]

UPDATE_LEAD_MS: Final = 1_000
CHUNK: Final = 1 << 16
NO_FACTS: Final = np.zeros((0, 0))


class Strings(Sequence[str]):
    """Text by number: a few names, then many that stay packed."""

    def __init__(self, names: Sequence[str], packed: pa.LargeStringArray) -> None:
        self._names = names
        self._packed = packed

    def __len__(self) -> int:
        return len(self._names) + len(self._packed)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0 or index >= len(self):
            raise IndexError(index)
        if index < len(self._names):
            return self._names[index]
        text: str = self._packed[index - len(self._names)].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        yield from self._names
        yield from unpacked(self._packed)


def unpacked(packed: pa.LargeStringArray) -> Iterator[str]:
    """Each text, a chunk of them in memory at a time."""
    for start in range(0, len(packed), CHUNK):
        yield from packed.slice(start, CHUNK).to_pylist()


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of n users or items: `numbers` float64, shape (n, len(names)), nan: unknown."""

    names: tuple[str, ...] = ()
    numbers: Floats = field(default_factory=lambda: NO_FACTS)

    def of(self, place: int) -> dict[str, float]:
        """Known attributes of one of them."""
        if not self.names:
            return {}
        row = self.numbers[place].tolist()
        return {name: x for name, x in zip(self.names, row, strict=True) if x == x}


@dataclass(frozen=True, eq=False)
class Log:
    """n rows, each about one user and one item; events of one moment are in order of their rows.

    `user`, `item` int64, shape (n,): places in `users` and `items`. `category` int64, shape
    (len(items),), places in `categories`, -1: none. `request` int64, shape (n,), places in
    `requests`. `names`, n of them and no two alike, are what event ids are made of. `location`
    int64, shape (n,), places in `locations`, -1: none. `position` int32, shape (n,). `titles`,
    `descriptions` and `tags` are empty or one for each item.
    """

    users: Sequence[str]
    items: Sequence[str]
    user: Ints
    item: Ints
    names: pa.LargeStringArray
    requests: pa.LargeStringArray
    request: Ints
    position: npt.NDArray[np.int32]
    category: Ints
    location: Ints
    categories: Sequence[str] = ()
    locations: Sequence[str] = ()
    titles: Sequence[str] = ()
    descriptions: Sequence[str] = ()
    tags: Sequence[tuple[str, ...]] = ()
    user_facts: Facts = field(default_factory=Facts)
    item_facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, eq=False)
class Part:
    """Events of one kind: rows of the log, int64, shape (k,), when, and each one's value.

    `named`: they carry their row's request, as impressions and clicks must.
    """

    kind: Kind
    row: Ints
    time_ms: Ints
    value: Floats | None = None
    named: bool = True


def as_history(log: Log, parts: Sequence[Part], *, until_ms: int | None) -> History:
    """The rows as events in order of time, ties by row and then by part; and the items.

    A user of whom something is known has an update one second before the first event.

    Args:
        until_ms: the last event is shifted there, and all others with it; None keeps the times.
    """
    parts = [_updates(log, parts), *parts]
    kind = np.repeat(
        np.array([part.kind for part in parts], np.uint8), [len(part.row) for part in parts]
    )
    row = np.concatenate([part.row for part in parts])
    time_ms = np.concatenate([part.time_ms for part in parts])
    value = np.concatenate([_value(part) for part in parts])
    named = np.repeat([part.named for part in parts], [len(part.row) for part in parts])
    if until_ms is not None:
        time_ms += until_ms - int(time_ms.max())
    order = np.lexsort((np.arange(len(row)), row, time_ms))
    columns = _columns(log, kind[order], row[order], time_ms[order], value[order], named[order])
    return History(columns, tuple(_items(log, int(columns.event_time_ms[0]))))


def _value(part: Part) -> Floats:
    return np.zeros(len(part.row)) if part.value is None else part.value


def _updates(log: Log, parts: Sequence[Part]) -> Part:
    row = np.concatenate([part.row for part in parts])
    time_ms = np.concatenate([part.time_ms for part in parts])
    first = np.lexsort((row, time_ms))
    _, place = np.unique(log.user[row[first]], return_index=True)
    first = first[place]
    if log.user_facts.names:
        known = np.flatnonzero(~np.isnan(log.user_facts.numbers).all(axis=1))
        first = first[np.isin(log.user[row[first]], known)]
    else:
        first = first[:0]
    return Part(Kind.USER_UPDATE, row[first], time_ms[first] - UPDATE_LEAD_MS, named=False)


def _items(log: Log, updated_ms: int) -> Iterator[HistoryItem]:
    for place, item_id in enumerate(log.items):
        category = int(log.category[place])
        yield HistoryItem(
            item_id=item_id,
            category=log.categories[category] if category >= 0 else "",
            title=log.titles[place] if log.titles else "",
            updated_ms=updated_ms,
            attributes=log.item_facts.of(place),
            description=log.descriptions[place] if log.descriptions else "",
            tags=log.tags[place] if log.tags else (),
        )


def _columns(
    log: Log,
    kind: npt.NDArray[np.uint8],
    row: Ints,
    time_ms: Ints,
    value: Floats,
    named: npt.NDArray[np.bool_],
) -> EventColumns:
    """Event j is of kind[j] and about row[j]."""
    groups = (log.users, log.items, log.categories, log.locations, log.user_facts.names)
    starts = np.cumsum([1, *map(len, groups)])
    first_user, first_item, first_category, first_location, first_fact, first_request = starts
    strings = Strings(["", *(name for group in groups for name in group)], log.requests)
    about_item = kind != Kind.USER_UPDATE
    shown = kind == Kind.IMPRESSION
    item = log.item[row]
    assert (named | ~np.isin(kind, FEEDBACK_KINDS)).all()
    updates = np.flatnonzero(~about_item)
    facts = log.user_facts.numbers[log.user[row[updates]]] if len(updates) else NO_FACTS
    update, fact = np.nonzero(~np.isnan(facts))
    zeros = np.zeros(len(kind), np.uint32)
    return EventColumns(
        strings=strings,
        kind=kind,
        event_id=event_ids(_names(log, kind, row)),
        event_time_ms=time_ms,
        user_id=(first_user + log.user[row]).astype(np.uint32),
        item_id=np.where(about_item, first_item + item, 0).astype(np.uint32),
        request_id=np.where(named, first_request + log.request[row], 0).astype(np.uint32),
        position=np.where(shown, log.position[row], 0).astype(np.int32),
        value=value,
        category=_from(first_category, np.where(about_item, log.category[item], -1)),
        currency=zeros,
        session_id=zeros,
        device=zeros,
        query=zeros,
        location=_from(first_location, np.where(about_item, log.location[row], -1)),
        attribute_row=updates[update].astype(np.uint32),
        attribute_name=(first_fact + fact).astype(np.uint32),
        attribute_text=np.zeros(len(fact), np.uint32),
        attribute_number=facts[update, fact],
    )


def _from(first: int, place: Ints) -> npt.NDArray[np.uint32]:
    return np.where(place >= 0, first + place, 0).astype(np.uint32)


def _names(log: Log, kind: npt.NDArray[np.uint8], row: Ints) -> Iterator[str]:
    suffix = {int(k): f"/{k.name.lower()}" for k in Kind}
    for start in range(0, len(row), CHUNK):
        rows = row[start : start + CHUNK]
        names = log.names.take(pa.array(rows)).to_pylist()
        for name, k in zip(names, kind[start : start + CHUNK].tolist(), strict=True):
            yield name + suffix[k]


def nowhere(n: int) -> Ints:
    """No place for each of n rows or items: what `location` and `category` are where unknown."""
    return np.full(n, -1)
