"""Which configurations of sources are refused, and what quotas come to."""

from __future__ import annotations

import json

import pytest

from rankstream.contracts.sources import AS_TUNED, Source, decode_sources
from rankstream.errors import InvalidSettings


def decoded(*sources: dict[str, object], **rest: object) -> None:
    decode_sources(json.dumps({"sources": sources, **rest}).encode(), "sources.json")


@pytest.mark.parametrize(
    ("sources", "rest", "what"),
    [
        ([{"name": "trendy"}], {}, r"sources\.json: sources\.0\.name: Input should be 'towers'"),
        ([{"name": "towers"}] * 2, {}, "names one twice: towers, towers"),
        ([], {"fallbacks": ["popular", "popular"]}, "names one twice"),
        (
            [{"name": "towers", "min_share": 0.6}, {"name": "popular", "min_share": 0.5}],
            {},
            "min_share adds up to more than 1",
        ),
        (
            [{"name": "towers", "min_share": 0.6, "max_share": 0.5}],
            {},
            "towers: min_share is above max_share",
        ),
        ([{"name": "popular"}], {}, "popular: names nobody without a weight or a min_share"),
        ([{"name": "fresh"}], {}, "fresh: is scored by towers"),
        ([{"name": "towers"}, {"name": "fresh", "weight": 2}], {}, "fresh: is weighed as towers"),
        ([{"name": "towers", "floor": float("nan")}], {}, r"floor: .*finite"),
        ([{"name": "towers", "quota": 3}], {}, "Extra inputs"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(
    sources: list[dict[str, object]], rest: dict[str, object], what: str
) -> None:
    with pytest.raises(InvalidSettings, match=what):
        decoded(*sources, **rest)


def test_a_quota_is_never_more_than_its_share() -> None:
    source = Source(name="towers", min_share=0.29, max_share=0.31)

    assert [source.slots(k) for k in (1, 10, 100, 500)] == [(0, 1), (2, 4), (29, 31), (145, 155)]
    assert AS_TUNED.sources[0].slots(500) == (0, None)
