"""Daily features and labels of a whole log, written once: Ibis expressions for DuckDB or Spark.

Tables in, tables out; nothing here reads or writes. Both engines give the same rows: counts are
integers, money is fixed-point micros, and ties are broken by content. What counts, when a click or
a purchase makes a label, and how far a window reaches are decided as the stream decides
(`rankstream/attribution.py`, `rankstream/features/rows.py`), with the watermark that follows event
time, as in `replay.py`. Two things differ from the stream: a label takes in any amount of feedback
(the stream: FEEDBACK_PER_LABEL_MAX), and nobody is forgotten after a TTL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import ibis
from ibis.expr.types import BooleanValue, FloatingValue, IntegerValue, Table

from pipelines.features.replay import Windows
from rankstream.contracts.base import CATEGORY_BYTES_MAX, ID_BYTES_MAX, QUERY_CHARACTERS_MAX
from rankstream.contracts.columns import (
    FEEDBACK_KINDS,
    ITEM_KINDS,
    POSITION_MAX,
    VALUE_MAX,
    Kind,
    TimeLimits,
)
from rankstream.features import spec
from rankstream.features.rows import COUNTERS, MICROS, TOTALS, WINDOWS
from rankstream.sessions import ACTIVITY_KINDS

# Runs a query once and keeps its rows, for those that read them more than once.
Keep: TypeAlias = Callable[[Table], Table]

KEY: Final = ("user_id", "request_id", "item_id")
# What an event names beside its user and item.
NAMED: Final = ("category", "query", "location")
ENTITIES: Final = {"user": "user_id", "item": "item_id", **{name: name for name in NAMED}}
_PLACE: Final = ("partition", "offset", "row")
# Of the lake's `events`, what this reads.
COLUMNS: Final = (
    *_PLACE, "append_time_ms", "event_id", "kind", "event_time_ms", *KEY,
    "position", "value", *NAMED,
)  # fmt: skip
_IDLE_LOG_S_MAX: Final = 20.0


def _bits(text: str) -> int:
    """Bits of a text in UTF-8. Ibis reads the signature only: both engines have the function."""
    return 8 * len(text.encode())


_bit_length: Final = ibis.udf.scalar.builtin(_bits, name="bit_length")


def allowed(events: Table, limits: TimeLimits) -> Table:
    """Events that keep the contract, as `contracts.columns.refuse` decides; ticks among them."""
    kind, tick = events.kind, events.kind == int(Kind.TICK)
    ahead_ms = events.event_time_ms - events.append_time_ms
    return events.filter(
        kind.isin([int(known) for known in Kind]),
        tick | (events.user_id != ""),
        ~kind.isin([int(known) for known in ITEM_KINDS]) | (events.item_id != ""),
        ~kind.isin([int(known) for known in FEEDBACK_KINDS]) | (events.request_id != ""),
        *(events[name].length() <= ID_BYTES_MAX for name in KEY),
        _bit_length(events.category) <= 8 * CATEGORY_BYTES_MAX,
        events.query.length() <= QUERY_CHARACTERS_MAX,
        events.location.length() <= ID_BYTES_MAX,
        (events.position >= 0) & (events.position < POSITION_MAX),
        # Both engines hold nan for greater than any number.
        events.value.abs() <= VALUE_MAX,
        (kind != int(Kind.PURCHASE)) | (events.value >= 0),
        ahead_ms <= limits.ahead_ms_max,
        (-ahead_ms <= limits.behind_ms_max) & (events.event_time_ms > 0),
    )


def reached_ms(events: Table) -> IntegerValue:
    """Event time that every partition of the log has reached."""
    by_partition = events.group_by("partition").agg(newest_ms=events.event_time_ms.max())
    return by_partition.newest_ms.min()


def activity(events: Table) -> Table:
    """What users did: each event_id once, the first in the log; values as micros."""
    first = ibis.row_number().over(
        group_by=events.event_id, order_by=[events[name] for name in _PLACE]
    )
    distinct = events.mutate(nth=first).filter(ibis._.nth == 0)
    own = distinct.filter(distinct.kind.isin(sorted(ACTIVITY_KINDS)))
    return own.select(
        *KEY,
        *NAMED,
        "position",
        kind=own.kind.cast("int64"),
        time_ms=own.event_time_ms,
        micros=_micros(own.value),
    )


def _micros(value: FloatingValue) -> IntegerValue:
    """Fixed-point micros, half to even: the engines' own rounding functions differ."""
    scaled = value * float(MICROS)
    whole = scaled.floor().cast("int64")
    rest = scaled - whole.cast("float64")
    is_odd = whole % 2 != 0
    return whole + ((rest > 0.5) | ((rest == 0.5) & is_odd)).cast("int64")


def _is(rows: Table, kind: Kind) -> BooleanValue:
    return rows.kind == int(kind)


def feedback(rows: Table, windows: Windows, keep: Keep) -> Table:
    """Impressions, clicks and purchases of requests, each with the label that it falls on.

    A label takes in what comes to its key until its anchor (its impression; without one, its first
    event) is older than the longest window and the lateness; what comes then is of a new label.
    So each key's first label is found, then the first one of what is left, until nothing is left:
    few keys come back after a day, so the second round is small.

    Returns: columns of `activity`, and `label_ms`, the time of the label's first event, which with
        KEY names the label.
    """
    left = rows.filter(
        rows.kind.isin([int(kind) for kind in (Kind.IMPRESSION, Kind.CLICK, Kind.PURCHASE)]),
        rows.request_id != "",
    )
    found = left.limit(0).mutate(label_ms=left.time_ms)
    kept_ms = max(windows.click_window_ms, windows.conversion_window_ms) + windows.lateness_ms
    while True:
        spans = left.group_by(*KEY).agg(
            label_ms=left.time_ms.min(),
            shown_ms=left.time_ms.min(where=_is(left, Kind.IMPRESSION)),
        )
        shown = spans.shown_ms <= spans.label_ms + kept_ms
        anchor_ms = ibis.ifelse(shown, spans.shown_ms, spans.label_ms)
        spans = spans.select(*KEY, "label_ms", end_ms=anchor_ms + kept_ms)
        held = keep(left.join(spans, KEY))
        own = held.filter(held.time_ms <= held.end_ms).drop("end_ms")
        found = found.union(own)
        left = held.filter(held.time_ms > held.end_ms).drop("end_ms", "label_ms")
        if not left.count().execute():
            return found


def _impressions(found: Table) -> Table:
    """The impression of each label: the earliest; of these the least position, then by NAMED."""
    own = found.filter(_is(found, Kind.IMPRESSION))
    nth = ibis.row_number().over(
        group_by=[*KEY, "label_ms"],
        order_by=[own.time_ms, own.position, *(own[name] for name in NAMED)],
    )
    return own.mutate(nth=nth).filter(ibis._.nth == 0).drop("nth")


def labels(found: Table, windows: Windows) -> Table:
    """The label of each impression, ends of windows included; final once both have closed.

    Args:
        found: what `feedback` returns.

    Returns: KEY, impression_time_ms, position, NAMED, clicked and purchased (0 or 1),
        value_micros (of all purchases within the window).
    """
    shown = _impressions(found).select(
        *KEY, "label_ms", "position", *NAMED, impression_time_ms=ibis._.time_ms
    )
    acts = found.select(*KEY, "label_ms", "kind", "time_ms", "micros")
    rows = shown.join(acts, [*KEY, "label_ms"])
    after_ms = rows.time_ms - rows.impression_time_ms
    clicked = _is(rows, Kind.CLICK) & after_ms.between(0, windows.click_window_ms)
    purchased = _is(rows, Kind.PURCHASE) & after_ms.between(0, windows.conversion_window_ms)
    by = [*KEY, "label_ms", "impression_time_ms", "position", *NAMED]
    return (
        rows.group_by(*by)
        .agg(
            clicked=clicked.cast("int64").max().cast("int8"),
            purchased=purchased.cast("int64").max().cast("int8"),
            value_micros=_sum(rows.micros, purchased),
        )
        .drop("label_ms")
    )


def _sum(column: IntegerValue, where: BooleanValue) -> IntegerValue:
    # DuckDB adds int64 up to int128, which Parquet has not; Ibis takes it for int64 and would leave
    # out a cast to that. A sum of nothing is null.
    return column.sum(where=where).fill_null(0).cast("decimal(38, 0)").cast("int64")


def additions(rows: Table, found: Table) -> Table:
    """What each event adds to the counters of its user, its item and what it names.

    Of a label's impressions and of its clicks the earliest counts once; repeats count nothing, but
    were seen. `found` is what `feedback` returns of `rows`.

    Returns: user_id, item_id, NAMED ("": none), time_ms and the columns of TOTALS.
    """
    is_click = _is(found, Kind.CLICK)
    # A click's position says nothing.
    position = ibis.ifelse(is_click, 0, found.position)
    nth = ibis.row_number().over(
        group_by=[*KEY, "label_ms", "kind"],
        order_by=[found.time_ms, position, *(found[name] for name in NAMED)],
    )
    once = found.mutate(amount=(nth == 0).cast("int64"))
    once = once.filter(once.kind.isin([int(kind) for kind in FEEDBACK_KINDS])).drop("label_ms")
    others = rows.filter(~rows.kind.isin([int(kind) for kind in FEEDBACK_KINDS]))
    all_of = once.union(others.mutate(amount=ibis.literal(1, "int64")))
    about_item = ~_is(all_of, Kind.VISIT)
    kinds = (Kind.IMPRESSION, Kind.CLICK, Kind.VIEW, Kind.PURCHASE)
    nothing = ibis.literal(0, "int64")

    def of(kind: Kind, amount: IntegerValue) -> IntegerValue:
        return ibis.ifelse(_is(all_of, kind), amount, nothing)

    return all_of.select(
        "user_id",
        "time_ms",
        **{name: ibis.ifelse(about_item, all_of[name], "") for name in ("item_id", *NAMED)},
        **{name: of(kind, all_of.amount) for name, kind in zip(COUNTERS, kinds, strict=True)},
        value_micros=of(Kind.PURCHASE, all_of.micros),
        ratings=of(Kind.RATE, all_of.amount),
        rating_micros=of(Kind.RATE, all_of.micros),
    )


def counters(added: Table, entity: str, as_of_ms: int) -> Table:
    """Counters of each key of an entity as of a time, and the features of the spec by them.

    Only what was before counts. Windows are those of the rings that serve: whole buckets, the
    current one included, so that at midnight "24h" are the 21 hours before.

    Args:
        added: what `additions` returns.
        entity: one of ENTITIES.

    Returns: the entity's id; <counter>_<window> and TOTALS, int64; last_ms, the newest event;
        and the entity's features by the names of the spec, float32.
    """
    known = added.filter(added[ENTITIES[entity]] != "", added.time_ms < as_of_ms)
    anything = ibis.literal(True)
    windowed = {
        f"{name}_{window.name}": _sum(
            known[name],
            known.time_ms >= (as_of_ms // window.bucket_ms - window.buckets + 1) * window.bucket_ms,
        )
        for window in WINDOWS
        for name in COUNTERS
    }
    totals = {name: _sum(known[name], anything) for name in TOTALS}
    rows = known.group_by(ENTITIES[entity]).agg(**windowed, **totals, last_ms=known.time_ms.max())
    features = _features(rows, as_of_ms)
    return rows.mutate(
        **{f"{entity}_{name}": value.cast("float32") for name, value in features.items()}
    )


def _features(rows: Table, as_of_ms: int) -> dict[str, FloatingValue]:
    """As `snapshot` evaluates the same counters; names without their entity."""
    found: dict[str, FloatingValue] = {}
    for suffix in (*(f"_{window.name}" for window in WINDOWS), ""):
        shown, clicks = rows[f"impressions{suffix}"], rows[f"clicks{suffix}"]
        found[f"log_impressions{suffix}"] = (shown + 1.0).ln()
        found[f"ctr{suffix}"] = _rate(clicks, shown, spec.CTR_PRIOR, spec.PRIOR_STRENGTH)
    found["cvr"] = _rate(rows.purchases, rows.clicks, spec.CVR_PRIOR, spec.PRIOR_STRENGTH)
    found["log_ratings"] = (rows.ratings + 1.0).ln()
    rating = rows.rating_micros / float(MICROS)
    found["mean_rating"] = _rate(rating, rows.ratings, spec.RATING_PRIOR, spec.RATING_STRENGTH)
    idle = ((as_of_ms - rows.last_ms) / 1000.0 + 1.0).ln()
    found["log_idle_s"] = ibis.least(idle, _IDLE_LOG_S_MAX)
    return found


def _rate(
    part: IntegerValue | FloatingValue, whole: IntegerValue, prior: float, strength: float
) -> FloatingValue:
    return (part + prior * strength) / (whole + strength)


def rows_of(found: Table, of: dict[str, Table]) -> Table:
    """Training rows: labels, each with the features that its day began with.

    Args:
        found: what `labels` returns, of one day.
        of: entity -> what `counters` returns as of the midnight that the day began with.

    Returns: the labels, and the features of the spec of each entity, float32; where nothing was
        known, the spec's default.
    """
    rows = found
    for entity, table in of.items():
        prefix = f"{entity}_"
        wanted = [f for f in spec.FEATURES if f.name in table.columns and f.name.startswith(prefix)]
        name = ENTITIES[entity]
        known = table.select(
            **{f"known_{name}": table[name]}, **{f.name: table[f.name] for f in wanted}
        )
        rows = rows.left_join(known, rows[name] == known[f"known_{name}"]).drop(f"known_{name}")
        # Spark has no float32 literals: through float64.
        rows = rows.mutate(
            **{
                f.name: rows[f.name].cast("float64").fill_null(f.default).cast("float32")
                for f in wanted
            }
        )
    return rows
