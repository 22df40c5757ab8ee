"""Random logs: slates with repeats, early and late feedback, shuffled, resent, cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from rankstream.contracts.events import Event, ItemUpdate
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES
from rankstream.stream.partition import FoldSettings
from tests.parity.events import an_event

MINUTE_MS = 60_000
SETTINGS = FoldSettings(
    lateness_ms=5 * MINUTE_MS,
    click_window_ms=2 * MINUTE_MS,
    conversion_window_ms=20 * MINUTE_MS,
    session_gap_ms=3 * MINUTE_MS,
    dedupe_ms=10 * MINUTE_MS,
)
HORIZON_MS = SETTINGS.conversion_window_ms
USERS = ("ann", "bob")
ITEMS = ("i0", "i1", "i2", "i3")
CATEGORIES = ("", "drama", "crime")
# A query and a location may have the name of a category or an item.
QUERIES = ("", "drama", "i0")
LOCATIONS = ("", "home")

# Edges of the windows come up often; in between, anything.
_AFTER = st.sampled_from(
    (0, 1, SETTINGS.click_window_ms, SETTINGS.click_window_ms + 1, HORIZON_MS)
) | st.integers(0, HORIZON_MS)
_PURCHASE_AFTER = _AFTER | st.sampled_from((HORIZON_MS + 1, HORIZON_MS + 5 * MINUTE_MS))
_TIMES = st.integers(0, 3 * 60 * MINUTE_MS) | st.integers(0, 20).map(lambda n: n * 3 * MINUTE_MS)
# Of users, of their context, and of nobody: either kind of event may name any.
_ATTRIBUTES = st.dictionaries(
    st.sampled_from((*USER_ATTRIBUTES, "shoe", "temperature_c", "traffic", "local_events")),
    st.sampled_from((0.0, -0.0, 1.0, 44.0)),
)
_VALUES = st.sampled_from((0.0, 1.0, 3.5, 4.25, 19.99))


@dataclass(frozen=True)
class Log:
    """Records in log order; `restarts[i]`: the worker restarts before record i.

    A run of records that are folded at one go ends before record i if `cuts[i]`, or at a restart.
    """

    records: list[list[Event]]
    restarts: list[bool]
    cuts: list[bool]
    items: list[ItemUpdate]

    @property
    def runs(self) -> list[tuple[bool, list[list[Event]]]]:
        """Whether the worker restarts before it, and the records, of each run."""
        runs: list[tuple[bool, list[list[Event]]]] = []
        for record, restart, is_cut in zip(self.records, self.restarts, self.cuts, strict=True):
            if restart or is_cut or not runs:
                runs.append((restart, []))
            runs[-1][1].append(record)
        return runs

    @property
    def events(self) -> list[Event]:
        return [event for record in self.records for event in record]

    @property
    def newest_ms(self) -> int:
        return max(event.event_time_ms for event in self.events)


_CATEGORY = st.sampled_from(CATEGORIES)
_NAMED = st.fixed_dictionaries(
    {
        "category": _CATEGORY,
        "query": st.sampled_from(QUERIES),
        "location": st.sampled_from(LOCATIONS),
    }
)


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """Distinct events; those of one slate lie within the horizon, purchases aside."""
    found: list[Event] = []

    def add(kind: str, after_ms: int, user: str, **fields: object) -> None:
        event = an_event(kind, len(found) + 1, after_ms=after_ms, user=user, **fields)
        found.append(event)

    for request in range(draw(st.integers(0, 6))):
        user, item = draw(st.sampled_from(USERS)), draw(st.sampled_from(ITEMS))
        base, about = draw(_TIMES), {"request_id": f"r{request}", "item_id": item}
        for after in draw(st.lists(_AFTER, max_size=3)):
            position, named = draw(st.integers(0, 3)), draw(_NAMED)
            add("impression", base + after, user, **about, position=position, **named)
        for after in draw(st.lists(_AFTER, max_size=3)):
            add("click", base + after, user, **about, **draw(_NAMED))
        for after in draw(st.lists(_PURCHASE_AFTER, max_size=2)):
            add("purchase", base + after, user, **about, value=draw(_VALUES))
    for kind in draw(st.lists(st.sampled_from(("view", "rate", "purchase")), max_size=8)):
        user, item = (draw(st.sampled_from(of)) for of in (USERS, ITEMS))
        value = draw(_VALUES)
        add(kind, draw(_TIMES), user, item_id=item, **draw(_NAMED), value=value)
    for after in draw(st.lists(_TIMES, max_size=2)) or [0]:
        add("visit", after, draw(st.sampled_from(USERS)))
    for kind in draw(st.lists(st.sampled_from(("user_update", "context")), max_size=5)):
        user, attributes = draw(st.sampled_from(USERS)), draw(_ATTRIBUTES)
        add(kind, draw(_TIMES), user, attributes=attributes)
    return found


@st.composite
def arrivals(
    draw: st.DrawFn, distinct: list[Event], *, delay_ms_max: int = SETTINGS.lateness_ms
) -> list[Event]:
    """The events as they reach the log, delayed at random, some of them more than once.

    None is late unless the delay may exceed the lateness.
    """
    sent = [*distinct, *draw(st.lists(st.sampled_from(distinct), max_size=4))]
    delays = draw(
        st.lists(
            st.sampled_from((0, SETTINGS.lateness_ms, delay_ms_max)) | st.integers(0, delay_ms_max),
            min_size=len(sent),
            max_size=len(sent),
        )
    )
    order = sorted(range(len(sent)), key=lambda i: (sent[i].event_time_ms + delays[i], i))
    return [sent[i] for i in order]


@st.composite
def cut(draw: st.DrawFn, log: list[Event]) -> list[list[Event]]:
    """The log as records of random lengths."""
    ends = draw(st.sets(st.integers(1, len(log)), max_size=len(log)))
    edges = [0, *sorted(ends | {len(log)})]
    return [log[a:b] for a, b in pairwise(edges) if a < b]


@st.composite
def item_updates(draw: st.DrawFn) -> list[ItemUpdate]:
    """Metadata of some items, in any order, of distinct ages."""
    count = draw(st.integers(0, 6))
    ages = draw(st.permutations(range(1, count + 1)))
    return [
        ItemUpdate(
            item_id=draw(st.sampled_from(ITEMS)),
            category=draw(_CATEGORY),
            updated_ms=age,
            attributes=draw(
                st.dictionaries(st.sampled_from(ITEM_ATTRIBUTES), st.sampled_from((5.0, 1999.0)))
            ),
        )
        for age in ages
    ]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """A log with everything that may happen to one."""
    delay_ms_max = draw(st.sampled_from((SETTINGS.lateness_ms, 4 * SETTINGS.lateness_ms)))
    records = draw(cut(draw(arrivals(draw(events()), delay_ms_max=delay_ms_max))))
    flags = st.lists(st.booleans(), min_size=len(records), max_size=len(records))
    return Log(records, draw(flags), draw(flags), draw(item_updates()))
