"""refuse(): which rows of a record are not folded, and the first rule that each breaks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from rankstream.contracts.codec import decode_batch
from rankstream.contracts.columns import Kind, TimeLimits, refuse
from rankstream.errors import EventTimeOutOfRange, InvalidEvent, UnknownKind
from rankstream.pb import events_pb2 as pb

APPEND_MS = 1_800_000_000_000
LIMITS = TimeLimits(ahead_ms_max=60_000, behind_ms_max=1_000_000)
NAMES = ["user_id", "item_id", "request_id", "category"]


def a_batch(*rows: dict[str, Any]) -> bytes:
    """Impressions that break no rule, but for what each row changes."""
    batch = pb.EventBatch(strings=[""])
    batch.event_id = b"".join(UUID(int=row).bytes for row in range(len(rows)))
    for changes in rows:
        text = {"user_id": "u", "item_id": "i", "request_id": "r", "category": "c"}
        text |= {name: changes[name] for name in NAMES if name in changes}
        for name in NAMES:
            batch.strings.append(text[name])
            getattr(batch, name).append(len(batch.strings) - 1)
        batch.kind.append(changes.get("kind", Kind.IMPRESSION))
        batch.event_time_ms.append(changes.get("event_time_ms", APPEND_MS))
        batch.position.append(changes.get("position", 0))
        batch.value.append(changes.get("value", 0.0))
    return batch.SerializeToString()


def refused(*rows: dict[str, Any]) -> list[tuple[int, str]]:
    columns = decode_batch(a_batch(*rows))
    found = refuse(columns, append_time_ms=APPEND_MS, limits=LIMITS)
    return [(refusal.row, refusal.code) for refusal in found]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"event_time_ms": APPEND_MS + 60_000},
        {"event_time_ms": APPEND_MS - 1_000_000},
        {"position": 9_999},
        {"user_id": "u" * 256},
        {"category": "c" * 64},
        {"kind": Kind.PURCHASE, "value": 1e9, "request_id": ""},
        {"kind": Kind.VISIT, "item_id": "", "request_id": ""},
        {"kind": Kind.RATE, "value": -5.0},
    ],
)
def test_a_row_at_the_limit_is_kept(row: dict[str, Any]) -> None:
    assert refused(row) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"kind": 99}, UnknownKind.code),
        ({"kind": 0}, UnknownKind.code),
        ({"user_id": ""}, InvalidEvent.code),
        ({"user_id": "u" * 257}, InvalidEvent.code),
        ({"item_id": ""}, InvalidEvent.code),
        ({"item_id": "i" * 257}, InvalidEvent.code),
        ({"request_id": ""}, InvalidEvent.code),
        ({"request_id": "r" * 257}, InvalidEvent.code),
        ({"kind": Kind.CLICK, "request_id": ""}, InvalidEvent.code),
        ({"category": "é" * 33}, InvalidEvent.code),
        ({"position": -1}, InvalidEvent.code),
        ({"position": 10_000}, InvalidEvent.code),
        ({"value": float("nan")}, InvalidEvent.code),
        ({"value": float("inf")}, InvalidEvent.code),
        ({"kind": Kind.RATE, "value": -2e9}, InvalidEvent.code),
        ({"kind": Kind.PURCHASE, "value": -0.01}, InvalidEvent.code),
        ({"event_time_ms": APPEND_MS + 60_001}, EventTimeOutOfRange.code),
        ({"event_time_ms": APPEND_MS - 1_000_001}, EventTimeOutOfRange.code),
        ({"event_time_ms": 0}, EventTimeOutOfRange.code),
        ({"event_time_ms": -(1 << 63)}, EventTimeOutOfRange.code),
        ({"event_time_ms": (1 << 63) - 1}, EventTimeOutOfRange.code),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_alone(row: dict[str, Any], code: str) -> None:
    assert refused({}, row, {}) == [(1, code)]


def test_a_row_is_refused_once_with_the_first_rule_it_breaks() -> None:
    assert refused({"kind": 99, "user_id": "", "value": float("nan")}) == [(0, UnknownKind.code)]


def test_a_refusal_names_the_event() -> None:
    columns = decode_batch(a_batch({}, {"position": -1}))

    (refusal,) = refuse(columns, append_time_ms=APPEND_MS, limits=LIMITS)

    assert UUID(int=1).hex in refusal.reason
    assert "position is outside 0..9999" in refusal.reason
