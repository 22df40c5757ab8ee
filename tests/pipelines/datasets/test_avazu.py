"""Avazu as events: users and items that are assumptions, and times that are hours."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipelines.datasets.avazu import history
from rankstream.contracts.events import Impression
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import assert_sound, events_of, told

HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,"
    "device_id,device_ip,device_model,device_type,device_conn_type,C14,C15\n"
)
HOUR_MS = 1413849600_000  # 21 October 2014, 0:00 UTC


def a_row(row_id: str, *, click: str = "0", hour: str = "14102100", **fields: str) -> str:
    row = {"pos": "0", "site": "1fbe01fe", "app": "ecad2386", "ip": "ddd2926e", "c14": "15706"}
    row |= fields
    return (
        f"{row_id},{click},{hour},1005,{row['pos']},{row['site']},d,c,{row['app']},d,c,a99f214a,"
        f"{row['ip']},44956a24,1,2,{row['c14']},320\n"
    )


ROWS = HEADER + (
    a_row("100", hour="14102101", click="1")
    + a_row("10000434", click="1", pos="1")
    + a_row("200", site="85f751fd", app="9c13b419", ip="07d7df22")
)


def a_folder(root: Path, rows: str = ROWS) -> Path:
    (root / "train").write_text(rows, encoding="utf-8")
    return root


def test_a_row_is_an_impression_at_the_start_of_its_hour(tmp_path: Path) -> None:
    found = history(a_folder(tmp_path))

    assert told(found) == [
        ("impression", "ddd2926e-44956a24", "15706", 0),
        ("impression", "07d7df22-44956a24", "15706", 0),
        ("click", "ddd2926e-44956a24", "15706", 1_000),
        ("impression", "ddd2926e-44956a24", "15706", 3_600_000),
        ("click", "ddd2926e-44956a24", "15706", 3_601_000),
    ]
    shown = [e for e in events_of(found.columns) if isinstance(e, Impression)]
    assert [(e.request_id, e.position, e.location) for e in shown] == [
        ("avazu-10000434", 1, "site-1fbe01fe"),
        ("avazu-200", 0, "app-9c13b419"),
        ("avazu-100", 0, "site-1fbe01fe"),
    ]
    assert shown[0].event_time_ms == HOUR_MS
    assert [(i.item_id, i.category, dict(i.attributes)) for i in found.items] == [("15706", "", {})]


def test_the_history_is_sound_and_the_same_from_a_packed_file(tmp_path: Path) -> None:
    found = history(a_folder(tmp_path))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "train.gz").write_bytes(gzip.compress(ROWS.encode()))

    assert_sound(found)
    assert history(packed).columns.event_id == found.columns.event_id


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (ROWS + a_row("100"), r"train:5: '100': the id is there before"),
        (ROWS + a_row("", hour="14102100"), r"train:5: '': id is empty"),
        (ROWS + a_row("7", c14=""), r"train:5: '': C14 is empty"),
        (ROWS + a_row("7", click="2"), r"train:5: '2': click is not 0 or 1"),
        (ROWS + a_row("7", hour="141021"), r"train:5: hour '141021' is not YYMMDDHH"),
        (ROWS + a_row("7", pos="-1"), r"train:5: '-1': banner_pos is outside 0\.\.9999"),
        (ROWS + "7,1\n", r"train:5: Expected 18 columns, got 2"),
        ("id,hour\n", r"train:1: header 'id,hour' lacks click, banner_pos"),
        (HEADER, r"train:1: .*there are no rows"),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, rows: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        history(a_folder(tmp_path, rows))


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="train cannot be read: No such file"):
        history(tmp_path)
