"""Policies as they are written down: what is refused, and what their hash depends on."""

from __future__ import annotations

import pytest

from rankstream.contracts.policy import Policy, decode_policies
from rankstream.errors import InvalidSettings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "Input should be an object"),
        ('{"a": {"capp": 1}}', r"a\.capp: Extra inputs"),
        ('{"a": {"epsilon": 1.5}}', r"a\.epsilon: Input should be less than or equal to 1"),
        ('{"a b": {}}', r"a b\.\[key\]: String should match"),
        ('{"a": {"rules": [{"action": "boost", "match": {}}]}}', "matches everything"),
        (
            '{"a": {"rules": [{"action": "boost", "match": {"attribute": "year"}}]}}',
            "needs at_least or below",
        ),
        (
            '{"a": {"diversity": {"method": "mmr", "trade_off": 0.5, "category": 0}}}',
            r"sum to 0, must be in \(0, 1\]",
        ),
        (
            '{"a": {"pins": [{"slot": 1, "match": {"item_ids": ["i"]}},'
            ' {"slot": 1, "match": {"item_ids": ["j"]}}]}}',
            "two pins for one slot",
        ),
    ],
)
def test_what_a_policy_cannot_mean_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words) as raised:
        decode_policies(text.encode(), "p.json")

    assert "p.json" in str(raised.value)


def test_the_hash_is_of_what_it_does_and_not_of_how_it_is_written() -> None:
    text = (
        '{"a": {"caps": {"x": 1, "y": 2}}, "b": {"epsilon": 0.05, "caps": {"y": 2, "x": 1}},'
        ' "c": {"caps": {"x": 1, "y": 3}}}'
    )
    policies = decode_policies(text.encode(), "p.json")

    assert policies["a"].sha256 == policies["b"].sha256 != policies["c"].sha256
    assert len(policies["a"].sha256) == 16


def test_epsilon_alone_is_a_plain_policy() -> None:
    assert Policy(epsilon=0.3).is_plain
    assert not Policy(cap=2).is_plain
