"""What the stream must compute, from the raw events, in plain Python: slow and obvious.

Only contracts and `id64` are shared with the product; every feature of the spec
is computed here from lists of events.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rankstream.contracts.events import (
    Click,
    ContextUpdate,
    Event,
    Impression,
    ItemUpdate,
    Purchase,
    Rate,
    UserUpdate,
    View,
    Visit,
)
from rankstream.contracts.ids import id64
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
WINDOWS = {
    "5m": (MINUTE_MS, 5),
    "1h": (10 * MINUTE_MS, 6),
    "24h": (3 * HOUR_MS, 8),
    "7d": (24 * HOUR_MS, 7),
}

# How long what a context event states holds, and what stands for unknown.
CONTEXT = {
    "temperature_c": (3 * HOUR_MS, -100.0),
    "rain_mm_h": (3 * HOUR_MS, -1.0),
    "traffic": (30 * MINUTE_MS, -1.0),
    "local_events": (6 * HOUR_MS, -1.0),
}

# Breaks ties among actions of one moment, as the wire numbers the kinds.
KIND_NUMBERS = {"click": 2, "view": 3, "rate": 5, "purchase": 6}

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Settings:
    """Windows in ms of event time."""

    lateness_ms: int
    click_window_ms: int
    conversion_window_ms: int
    session_gap_ms: int


@dataclass(frozen=True)
class Label:
    """A final label."""

    impression_time_ms: int
    position: int
    clicked: bool
    purchased: bool
    value_micros: int


@dataclass(frozen=True)
class Session:
    """A closed session."""

    user_id: str
    start_ms: int
    end_ms: int
    events: int
    impressions: int
    clicks: int
    purchases: int


@dataclass(frozen=True)
class Addition:
    """What one event adds to the counters of its user, item, category, query and location."""

    user: str
    item: str
    category: str
    query: str
    location: str
    time_ms: int
    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    ratings: int = 0
    rating: float = 0.0


def kept(log: Iterable[Event], lateness_ms: int) -> list[Event]:
    """Events that count: the first of each event_id, and none behind the watermark."""
    seen: set[str] = set()
    newest = 0
    events: list[Event] = []
    for event in log:
        if event.event_id in seen or event.event_time_ms < newest - lateness_ms:
            continue
        seen.add(event.event_id)
        newest = max(newest, event.event_time_ms)
        events.append(event)
    return events


def labels(events: Sequence[Event], settings: Settings) -> dict[Key, Label]:
    """The label of each (user, request, item) that was on screen."""
    found: dict[Key, Label] = {}
    for key in {_key(event) for event in events if isinstance(event, Impression)}:
        mine = [
            event
            for event in events
            if isinstance(event, Impression | Click | Purchase) and _key(event) == key
        ]
        first = min(
            (event for event in mine if isinstance(event, Impression)),
            key=lambda event: (event.event_time_ms, event.position),
        )
        start = first.event_time_ms
        clicks = [
            event
            for event in mine
            if isinstance(event, Click)
            and start <= event.event_time_ms <= start + settings.click_window_ms
        ]
        purchases = [
            event
            for event in mine
            if isinstance(event, Purchase)
            and start <= event.event_time_ms <= start + settings.conversion_window_ms
        ]
        value = sum(round(event.value * 1e6) for event in purchases)
        found[key] = Label(start, first.position, bool(clicks), bool(purchases), value)
    return found


def unmatched(events: Sequence[Event], settings: Settings) -> set[str]:
    """event_ids of feedback that no impression precedes by at most the longest window."""
    shown = {key: label.impression_time_ms for key, label in labels(events, settings).items()}
    horizon_ms = max(settings.click_window_ms, settings.conversion_window_ms)
    return {
        event.event_id
        for event in events
        if isinstance(event, Click | Purchase)
        and event.request_id
        and not 0
        <= event.event_time_ms - shown.get(_key(event), event.event_time_ms + 1)
        <= horizon_ms
    }


def _key(event: Impression | Click | Purchase) -> Key:
    return (event.user_id, event.request_id, event.item_id)


def sessions(events: Sequence[Event], gap_ms: int) -> list[Session]:
    """Every user's sessions, by user, then time."""
    found: list[Session] = []
    acts = [event for event in events if not isinstance(event, UserUpdate | ContextUpdate)]
    for user in sorted({event.user_id for event in acts}):
        mine = sorted(
            (event for event in acts if event.user_id == user),
            key=lambda event: event.event_time_ms,
        )
        groups = [[mine[0]]]
        for event in mine[1:]:
            if event.event_time_ms - groups[-1][-1].event_time_ms <= gap_ms:
                groups[-1].append(event)
            else:
                groups.append([event])
        found += [_session(user, group) for group in groups]
    return found


def _session(user: str, group: Sequence[Event]) -> Session:
    return Session(
        user,
        group[0].event_time_ms,
        group[-1].event_time_ms,
        len(group),
        sum(isinstance(event, Impression) for event in group),
        sum(isinstance(event, Click) for event in group),
        sum(isinstance(event, Purchase) for event in group),
    )


def additions(events: Sequence[Event]) -> list[Addition]:
    """What counts: impressions and clicks once per (user, request, item), the earliest."""
    found: list[Addition] = []
    for kind in (Impression, Click):
        same: list[Impression | Click] = [e for e in events if isinstance(e, kind)]
        for key in {_key(event) for event in same}:
            mine = [event for event in same if _key(event) == key]
            mine.sort(key=lambda e: (e.event_time_ms, getattr(e, "position", 0), *_named(e)))
            for n, event in enumerate(mine):
                once = int(n == 0)
                counted = {"impressions": once} if kind is Impression else {"clicks": once}
                found.append(_addition(event, **counted))
    for other in events:
        if isinstance(other, Purchase):
            found.append(_addition(other, purchases=1))
        elif isinstance(other, Rate):
            found.append(_addition(other, ratings=1, rating=other.value))
        elif isinstance(other, View):
            found.append(_addition(other))
        elif isinstance(other, Visit):
            found.append(Addition(other.user_id, "", "", "", "", other.event_time_ms))
    return found


def _named(event: Impression | Click | View | Purchase | Rate) -> tuple[str, str, str]:
    return event.category, event.query, event.location


def _addition(event: Impression | Click | View | Purchase | Rate, **counts: float) -> Addition:
    return Addition(
        event.user_id,
        event.item_id,
        *_named(event),
        event.event_time_ms,
        **counts,  # type: ignore[arg-type]  # counts are ints, a rating is a float
    )


def features(
    events: Sequence[Event],
    items: Sequence[ItemUpdate],
    *,
    user: str,
    item: str,
    as_of_ms: int,
    gap_ms: int,
    query: str = "",
    location: str = "",
) -> dict[str, float]:
    """Every feature of the spec by name, for one user and item, no event being after `as_of_ms`."""
    added = additions(events)
    updates = [update for update in items if update.item_id == item]
    metadata = max(updates, key=lambda update: update.updated_ms) if updates else None
    category = metadata.category if metadata else ""
    of_category = [a for a in added if category and a.category == category]
    return {
        **_entity("user", [a for a in added if a.user == user], as_of_ms),
        **_entity("item", [a for a in added if a.item == item], as_of_ms),
        **_entity("category", of_category, as_of_ms),
        **_entity("query", [a for a in added if query and a.query == query], as_of_ms),
        **_entity("location", [a for a in added if location and a.location == location], as_of_ms),
        **_session_features(events, user, as_of_ms, gap_ms),
        **_last_ratings(events, user),
        **{f"user_{name}": _attribute(events, user, name) for name in USER_ATTRIBUTES},
        **_context(events, user, as_of_ms),
        **{
            f"item_{name}": metadata.attributes.get(name, -1.0) if metadata else -1.0
            for name in ITEM_ATTRIBUTES
        },
        **_affinity(events, [a for a in of_category if a.user == user], user, category),
        "hour_sin": math.sin(2 * math.pi * (as_of_ms % (24 * HOUR_MS)) / (24 * HOUR_MS)),
        "hour_cos": math.cos(2 * math.pi * (as_of_ms % (24 * HOUR_MS)) / (24 * HOUR_MS)),
        # The log knows no rating table.
        "user_item_expected_rating": 3.5,
        "user_item_rating_residual": 0.0,
        "user_item_factor_residual": 0.0,
    }


def _ctr(clicks: float, impressions: float) -> float:
    return (clicks + 3.0) / (impressions + 10.0)


def _entity(prefix: str, added: Sequence[Addition], as_of_ms: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, (bucket_ms, buckets) in WINDOWS.items():
        oldest = as_of_ms // bucket_ms - buckets + 1
        inside = [a for a in added if a.time_ms // bucket_ms >= oldest]
        impressions = sum(a.impressions for a in inside)
        values[f"{prefix}_log_impressions_{name}"] = math.log1p(impressions)
        values[f"{prefix}_ctr_{name}"] = _ctr(sum(a.clicks for a in inside), impressions)
    impressions, clicks = sum(a.impressions for a in added), sum(a.clicks for a in added)
    ratings = sum(a.ratings for a in added)
    values[f"{prefix}_log_impressions"] = math.log1p(impressions)
    values[f"{prefix}_ctr"] = _ctr(clicks, impressions)
    values[f"{prefix}_cvr"] = (sum(a.purchases for a in added) + 0.2) / (clicks + 10.0)
    values[f"{prefix}_log_ratings"] = math.log1p(ratings)
    values[f"{prefix}_mean_rating"] = (sum(a.rating for a in added) + 17.5) / (ratings + 5.0)
    newest = max((a.time_ms for a in added), default=None)
    idle = 20.0 if newest is None else min(20.0, math.log1p((as_of_ms - newest) / 1000))
    values[f"{prefix}_log_idle_s"] = idle
    return values


def _session_features(
    events: Sequence[Event], user: str, as_of_ms: int, gap_ms: int
) -> dict[str, float]:
    mine = [session for session in sessions(events, gap_ms) if session.user_id == user]
    if not mine or as_of_ms - mine[-1].end_ms > HOUR_MS // 2:
        return dict.fromkeys(
            ("user_session_log_s", "user_session_impressions", "user_session_clicks"), 0.0
        )
    last = mine[-1]
    return {
        "user_session_log_s": math.log1p((last.end_ms - last.start_ms) / 1000),
        "user_session_impressions": last.impressions,
        "user_session_clicks": last.clicks,
    }


def _attribute(events: Sequence[Event], user: str, name: str) -> float:
    known = [
        (event.event_time_ms, float(event.attributes[name]))
        for event in events
        if isinstance(event, UserUpdate) and event.user_id == user and name in event.attributes
    ]
    return max(known)[1] if known else -1.0


def _context(events: Sequence[Event], user: str, as_of_ms: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, (ttl_ms, unknown) in CONTEXT.items():
        stated = [
            (event.event_time_ms, float(event.attributes[name]))
            for event in events
            if isinstance(event, ContextUpdate)
            and event.user_id == user
            and name in event.attributes
        ]
        newest_ms, value = max(stated, default=(0, unknown))
        values[f"context_{name}"] = value if as_of_ms - newest_ms <= ttl_ms else unknown
    return values


def _affinity(
    events: Sequence[Event], added: Sequence[Addition], user: str, category: str
) -> dict[str, float]:
    impressions, ratings = sum(a.impressions for a in added), sum(a.ratings for a in added)
    actions = _actions(events, user)[:10]
    same = sum(bool(category) and action[5] == category for action in actions)
    return {
        "user_category_log_impressions": math.log1p(impressions),
        "user_category_ctr": _ctr(sum(a.clicks for a in added), impressions),
        "user_category_mean_rating": (sum(a.rating for a in added) + 17.5) / (ratings + 5.0),
        "user_category_recent_share": same / max(len(actions), 1),
    }


def _last_ratings(events: Sequence[Event], user: str) -> dict[str, float]:
    rated = [value for _, _, kind, value, *_ in _actions(events, user)[:50] if kind == 5]
    return {
        "user_last_5_mean_rating": (sum(rated[:5]) + 17.5) / (len(rated[:5]) + 5.0),
        "user_last_20_mean_rating": (sum(rated[:20]) + 17.5) / (len(rated[:20]) + 5.0),
    }


def _actions(events: Sequence[Event], user: str) -> list[tuple[int, int, int, float, int, str]]:
    """What the user did, newest first: time, item, kind, value, category and its name."""
    return sorted(
        (
            (
                event.event_time_ms,
                id64(event.item_id),
                KIND_NUMBERS[event.kind],
                event.value if isinstance(event, View | Rate | Purchase) else 0.0,
                id64(event.category) if event.category else 0,
                event.category,
            )
            for event in events
            if isinstance(event, Click | View | Rate | Purchase) and event.user_id == user
        ),
        reverse=True,
    )
