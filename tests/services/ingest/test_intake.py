"""Judging events: pure, so every flaw can be tried."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from rankstream.contracts.bodies import split_array
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.dead_letters import ORIGINAL_BYTES_MAX
from rankstream.errors import MalformedEvent, TooLarge
from services.ingest.intake import (
    EVENT_BYTES_MAX,
    Rejected,
    classify,
    dead_letter,
)

CLOCK_MS = 1_800_000_000_000
LIMITS = TimeLimits(ahead_ms_max=60_000, behind_ms_max=1_000_000)


def a_visit(**changes: Any) -> bytes:
    fields = {
        "kind": "visit",
        "event_id": str(UUID(int=1)),
        "user_id": "u",
        "event_time_ms": CLOCK_MS,
    }
    return json.dumps(fields | changes).encode()


def codes(*parts: bytes) -> list[tuple[int, str]]:
    _, rejected = classify(parts, clock_ms=CLOCK_MS, limits=LIMITS)
    return [(refused.index, refused.error.code) for refused in rejected]


@pytest.mark.parametrize(
    "flawed",
    [b'{"user_id":"\xff"}', b'{"n":' + b"9" * 5_000 + b"}", b'{"t":"a\nb"}', b'{"t":"\\ud800"}'],
    ids=["wrong UTF-8", "5,000 digits", "raw newline", "lone surrogate"],
)
def test_a_flaw_inside_one_element_spoils_that_element_only(flawed: bytes) -> None:
    parts = split_array(b"[" + a_visit() + b"," + flawed + b"," + a_visit() + b"]")

    accepted, rejected = classify(parts, clock_ms=CLOCK_MS, limits=LIMITS)

    assert [entry.index for entry in accepted] == [0, 2]
    assert [(refused.index, refused.original) for refused in rejected] == [(1, flawed)]


@pytest.mark.parametrize("time_ms", [CLOCK_MS + 60_000, CLOCK_MS - 1_000_000])
def test_an_event_time_at_the_limit_is_accepted(time_ms: int) -> None:
    assert codes(a_visit(event_time_ms=time_ms)) == []


@pytest.mark.parametrize(
    ("time_ms", "setting"),
    [
        (CLOCK_MS + 60_001, "INGEST_CLOCK_SKEW_MS_MAX"),
        (CLOCK_MS - 1_000_001, "INGEST_EVENT_AGE_MS_MAX"),
    ],
)
def test_an_event_time_beyond_the_limit_names_the_setting(time_ms: int, setting: str) -> None:
    _, (refused,) = classify([a_visit(event_time_ms=time_ms)], clock_ms=CLOCK_MS, limits=LIMITS)

    assert refused.error.code == "event_time_out_of_range"
    assert setting in str(refused.error)


def test_an_item_may_be_old_but_not_of_the_future() -> None:
    item = {"kind": "item_update", "item_id": "i"}
    old = json.dumps(item | {"updated_ms": 1}).encode()
    future = json.dumps(item | {"updated_ms": CLOCK_MS + 60_001}).encode()

    assert codes(old, future) == [(1, "event_time_out_of_range")]


def test_an_event_over_the_byte_limit_is_too_large() -> None:
    assert codes(a_visit(query="q" * EVENT_BYTES_MAX)) == [(0, "too_large")]


def test_a_refused_event_is_named_by_its_id_if_it_has_one() -> None:
    parts = [a_visit(user_id=""), b"{", b"[1]", b'{"event_id":5}']

    _, rejected = classify(parts, clock_ms=CLOCK_MS, limits=LIMITS, first_index=10)

    assert [refused.event_id for refused in rejected] == [str(UUID(int=1)), "", "", ""]
    assert [refused.index for refused in rejected] == [10, 11, 12, 13]


def test_a_dead_letter_holds_the_original_bytes() -> None:
    refused = Rejected(0, "", MalformedEvent("malformed_event: x"), b"\xff{oops")

    letter = dead_letter(refused, clock_ms=CLOCK_MS)

    assert (letter.original, letter.code, letter.partition) == (b"\xff{oops", "malformed_event", -1)
    assert (letter.source, letter.events, letter.refused_ms) == ("ingest", 1, CLOCK_MS)


def test_a_dead_letter_says_what_it_could_not_keep() -> None:
    refused = Rejected(0, "", TooLarge("too_large: x."), b"x" * (ORIGINAL_BYTES_MAX + 7))

    letter = dead_letter(refused, clock_ms=CLOCK_MS)

    assert len(letter.original) == ORIGINAL_BYTES_MAX
    assert "last 7 bytes were not kept" in letter.reason
