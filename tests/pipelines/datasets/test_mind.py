"""MIND as events: a line is a request, its news the impressions."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid5

import pytest

from pipelines.datasets.history import NAMESPACE
from pipelines.datasets.mind import history
from rankstream.contracts.events import Impression
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import events_of, told

BEHAVIORS = (
    "1\tU13\t11/15/2019 12:00:05 PM\tN9 N8\tN1-1 N2-0\n"
    "2\tU14\t11/15/2019 8:55:22 AM\t\tN3-0 N1-0 N3-1\n"
)
NEWS = "".join(
    f"{news}\t{category}\tsub\t{title}\tabstract\turl\t[]\t[]\n"
    for news, category, title in (
        ("N1", "sports", 'A "quoted title'),
        ("N2", "news", ""),
        ("N3", "", "Third"),
    )
)
MORNING_MS = 1573808122_000  # 15 November 2019, 8:55:22 UTC


def a_folder(root: Path, *, behaviors: str = BEHAVIORS, news: str = NEWS) -> Path:
    (root / "behaviors.tsv").write_text(behaviors, encoding="utf-8")
    (root / "news.tsv").write_text(news, encoding="utf-8")
    return root


def test_a_line_is_a_request_whose_news_are_impressions_and_marked_ones_clicks(
    tmp_path: Path,
) -> None:
    found = history(a_folder(tmp_path))

    assert told(found) == [
        ("impression", "U14", "N3", 0),
        ("impression", "U14", "N1", 0),
        ("click", "U14", "N3", 1_000),
        ("impression", "U13", "N1", 11_083_000),
        ("impression", "U13", "N2", 11_083_000),
        ("click", "U13", "N1", 11_084_000),
    ]
    shown = events_of(found.columns)[1]
    assert isinstance(shown, Impression)
    assert shown.request_id == f"mind-2-U14-{MORNING_MS}"
    assert (shown.event_time_ms, shown.position, shown.category) == (MORNING_MS, 0, "sports")
    assert UUID(shown.event_id) == uuid5(NAMESPACE, f"{shown.request_id}-N1/impression")
    assert {(i.description, i.tags) for i in found.items} == {("abstract", ("sub",))}
    assert [(i.item_id, i.category, i.title) for i in found.items] == [
        ("N1", "sports", 'A "quoted title'),
        ("N2", "news", ""),
        ("N3", "", "Third"),
    ]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"behaviors": BEHAVIORS + "3\tU1\t11/15/2019 9:00:00 AM\t\tN1\n"}, r"s\.tsv:3: .*'N1' is"),
        ({"behaviors": BEHAVIORS + "3\tU1\t11/15/2019 9:00:00 AM\t\t\n"}, r"s\.tsv:3: impression"),
        ({"behaviors": BEHAVIORS + "3\tU1\t2019-11-15\t\tN1-0\n"}, r"tsv:3: '2019-11-15': time is"),
        ({"behaviors": BEHAVIORS + "3\t\t11/15/2019 9:00:00 AM\t\tN1-0\n"}, r":3: '': the user is"),
        ({"behaviors": BEHAVIORS + "3\tU1\n"}, r"behaviors\.tsv:3: Expected 5 columns, got 2"),
        ({"behaviors": "3\tU1\t11/15/2019 9:00:00 AM\t\tN7-0\n"}, r"news\.tsv:3: .* for 'N7'"),
        ({"news": NEWS + NEWS.splitlines()[0] + "\n"}, r"news\.tsv:4: 'N1': the news is there"),
        ({"news": f"N1\tc\ts\t{'x' * 1025}\t\t\t\t\n"}, r"news\.tsv:1: .*: title is over 1024"),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        history(a_folder(tmp_path, **files))
