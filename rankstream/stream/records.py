"""Bytes of the records that the features service writes, and of those it reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.attribution import LabelChange, Unmatched
from rankstream.contracts.columns import Refusal
from rankstream.errors import InvalidBatch
from rankstream.features.deltas import CATEGORY, ITEM, Delta
from rankstream.pb import events_pb2 as pb
from rankstream.sessions import ClosedSession

UNMATCHED_CODE = "unmatched"
_SOURCE = "features"
_PROTOBUF = "application/x-protobuf"


def _dictionary() -> tuple[dict[str, int], Callable[[str], int]]:
    known = {"": 0}
    return known, lambda text: known.setdefault(text, len(known))


def encode_labels(
    changes: Sequence[LabelChange], *, partition: int, offset: int, watermark_ms: int
) -> bytes:
    """LabelBatch of the changes that one source record made."""
    known, number = _dictionary()
    keys, times, positions, old, new = zip(*changes, strict=True)
    batch = pb.LabelBatch(
        source_partition=partition,
        source_offset=offset,
        user_id=[number(key[0]) for key in keys],
        item_id=[number(key[2]) for key in keys],
        request_id=[number(key[1]) for key in keys],
        impression_time_ms=times,
        position=positions,
        old_status=[state[0] for state in old],
        new_status=[state[0] for state in new],
        old_clicked=[state[1] for state in old],
        new_clicked=[state[1] for state in new],
        old_purchased=[state[2] for state in old],
        new_purchased=[state[2] for state in new],
        old_value_micros=[state[3] for state in old],
        new_value_micros=[state[3] for state in new],
        watermark_ms=watermark_ms,
    )
    batch.strings.extend(known)
    return batch.SerializeToString(deterministic=True)


def encode_updates(deltas: Sequence[Delta], *, partition: int, offset: int) -> bytes:
    """FeatureUpdates of one source record for one target partition."""
    known, number = _dictionary()
    entity, key, times, impressions, clicks, views, purchases, value, ratings, rating = zip(
        *deltas, strict=True
    )
    updates = pb.FeatureUpdates(
        source_partition=partition,
        source_offset=offset,
        entity=entity,
        key=[number(text) for text in key],
        event_time_ms=times,
        impressions=impressions,
        clicks=clicks,
        views=views,
        purchases=purchases,
        value_micros=value,
        ratings=ratings,
        rating_micros=rating,
    )
    updates.strings.extend(known)
    return updates.SerializeToString(deterministic=True)


def decode_updates(record: bytes) -> pb.FeatureUpdates:
    """A FeatureUpdates record whose columns agree.

    Raises: InvalidBatch if it is none.
    """
    try:
        updates = pb.FeatureUpdates.FromString(record)
    except DecodeError as error:
        raise InvalidBatch(
            f"invalid_batch: record of {len(record)} bytes is not FeatureUpdates: {error}."
            " Not folded. Only the features service may write to this topic."
        ) from None
    lengths = {len(column) for column in _columns(updates)}
    strings = updates.strings
    if len(lengths) != 1 or (updates.key and max(updates.key) >= len(strings)):
        raise InvalidBatch(
            f"invalid_batch: FeatureUpdates with columns of lengths {sorted(lengths)} and"
            f" {len(strings)} strings. Not folded. Only the features service may write here."
        )
    if not set(updates.entity) <= {ITEM, CATEGORY}:
        raise InvalidBatch(
            f"invalid_batch: FeatureUpdates of entities {sorted(set(updates.entity))}"
            f" (known: {ITEM}, {CATEGORY}). Not folded. Upgrade this worker."
        )
    return updates


def _columns(updates: pb.FeatureUpdates) -> tuple[Sequence[int], ...]:
    return (
        updates.entity,
        updates.key,
        updates.event_time_ms,
        updates.impressions,
        updates.clicks,
        updates.views,
        updates.purchases,
        updates.value_micros,
        updates.ratings,
        updates.rating_micros,
    )


def deltas_of(updates: pb.FeatureUpdates) -> Iterator[Delta]:
    """Rows of a decoded record."""
    strings = list(updates.strings)
    for entity, key, *amounts in zip(*_columns(updates), strict=True):
        yield (entity, strings[key], *amounts)


def encode_session(session: ClosedSession, *, partition: int, offset: int) -> bytes:
    """Session record of a session that the record at `offset` closed."""
    return pb.Session(
        source_partition=partition,
        source_offset=offset,
        user_id=session.user_id,
        start_ms=session.start_ms,
        end_ms=session.end_ms,
        events=session.events,
        impressions=session.impressions,
        clicks=session.clicks,
        purchases=session.purchases,
    ).SerializeToString(deterministic=True)


def dead_record(
    *,
    code: str,
    reason: str,
    original: bytes,
    original_key: bytes,
    topic: str,
    partition: int,
    offset: int,
    append_time_ms: int,
    content_type: str = _PROTOBUF,
    events: int = 1,
) -> bytes:
    """DeadLetter of a whole record that could not be decoded."""
    return pb.DeadLetter(
        dead_letter_id=f"{topic}/{partition}/{offset}",
        code=code,
        reason=reason,
        original=original,
        original_key=original_key,
        source=_SOURCE,
        topic=topic,
        partition=partition,
        offset=offset,
        refused_ms=append_time_ms,
        content_type=content_type,
        events=events,
    ).SerializeToString(deterministic=True)


def dead_rows(
    refusals: Sequence[Refusal],
    *,
    original: bytes,
    original_key: bytes,
    partition: int,
    offset: int,
    append_time_ms: int,
) -> bytes:
    """DeadLetter of the refused rows of one record: its bytes, and why the first was refused."""
    first, topic = refusals[0], topics.EVENTS.name
    more = f" (and {len(refusals) - 1} more rows)" if len(refusals) > 1 else ""
    return pb.DeadLetter(
        dead_letter_id=f"{topic}/{partition}/{offset}",
        code=first.code,
        reason=f"row {first.row}: {first.reason}{more}",
        original=original,
        original_key=original_key,
        source=_SOURCE,
        topic=topic,
        partition=partition,
        offset=offset,
        rows=[refusal.row for refusal in refusals],
        refused_ms=append_time_ms,
        content_type=_PROTOBUF,
        events=len(refusals),
    ).SerializeToString(deterministic=True)


def dead_unmatched(
    given_up: Iterable[Unmatched], *, partition: int, append_time_ms: int
) -> list[bytes]:
    """DeadLetters of feedback whose impression never came; each holds its event, alone."""
    return [_dead_unmatched(unmatched, partition, append_time_ms) for unmatched in given_up]


def _dead_unmatched(unmatched: Unmatched, partition: int, append_time_ms: int) -> bytes:
    (user, request, item), feedback = unmatched
    event = pb.EventBatch(
        strings=["", user, request, item],
        kind=[pb.Kind.Name(feedback.kind)],
        event_id=feedback.event_id,
        event_time_ms=[feedback.time_ms],
        user_id=[1],
        request_id=[2],
        item_id=[3],
        value=[feedback.value_micros / 1e6],
    )
    topic = topics.EVENTS.name
    return pb.DeadLetter(
        dead_letter_id=f"{topic}/{partition}/{feedback.offset}/{feedback.row}",
        code=UNMATCHED_CODE,
        reason=f"no impression of item {item!r} in request {request!r} came in time before"
        f" event_time_ms={feedback.time_ms}",
        original=event.SerializeToString(deterministic=True),
        original_key=user.encode(),
        source=_SOURCE,
        topic=topic,
        partition=partition,
        offset=feedback.offset,
        rows=[feedback.row],
        refused_ms=append_time_ms,
        content_type=_PROTOBUF,
        events=1,
    ).SerializeToString(deterministic=True)
