"""Telling the events of a body apart: pure, so every flaw can be tried."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.bodies import split_any, split_array, split_lines
from rankstream.errors import InvalidInput, InvalidRequest, MalformedEvent, TooLarge

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(json_values, min_size=1, max_size=5), st.sampled_from(["", " ", "\n\t "]))
def test_the_elements_of_an_array_keep_their_bytes(values: list[Any], blank: str) -> None:
    parts = [json.dumps(value, ensure_ascii=False).encode(errors="replace") for value in values]
    gap = blank.encode()
    body = gap + b"[" + gap + (gap + b"," + gap).join(parts) + gap + b"]" + gap

    assert split_array(body) == parts


@given(st.binary(max_size=100))
def test_random_bytes_split_or_are_refused_by_name(body: bytes) -> None:
    for split in (split_array, split_lines, split_any):
        try:
            parts = split(body)
        except InvalidInput:
            continue
        assert all(part in body for part in parts)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1]]", b"[1] x", b"[" * 9_999],
)
def test_an_array_that_cannot_be_split_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedEvent, match="None was accepted"):
        split_array(body)


@pytest.mark.parametrize(
    ("split", "body"), [(split_array, b" [ ] "), (split_lines, b""), (split_lines, b"\n \n")]
)
def test_a_body_without_events_is_an_invalid_request(split: Any, body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no event"):
        split(body)


@pytest.mark.parametrize(
    ("split", "body"),
    [(split_array, b"[" + b",".join([b"1"] * 10_001) + b"]"), (split_lines, b"1\n" * 10_001)],
)
def test_more_events_than_a_request_may_hold_are_too_large(split: Any, body: bytes) -> None:
    with pytest.raises(TooLarge, match="10001 events"):
        split(body)
