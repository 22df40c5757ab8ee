"""Criteo: the attribution log as events, the display log refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.datasets.criteo import history
from rankstream.contracts.events import Purchase
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import events_of, told

HEADER = (
    "timestamp\tuid\tcampaign\tconversion\tconversion_timestamp\tconversion_id\tattribution\t"
    "click\tcost\n"
)


def a_row(second: int, *, click: int = 0, sold: tuple[int, int] = (-1, -1), uid: int = 7) -> str:
    then, conversion = sold
    return f"{second}\t{uid}\t400\t{int(conversion >= 0)}\t{then}\t{conversion}\t0\t{click}\t0.1\n"


ROWS = HEADER + (
    a_row(0, sold=(50, 11))
    + a_row(10, click=1, sold=(50, 11))
    + a_row(20, sold=(50, 11))
    + a_row(20, uid=8)
    + a_row(20, uid=8)
    + a_row(30, uid=9, sold=(30, 12))
)


def a_folder(root: Path, rows: str = ROWS) -> Path:
    (root / "criteo_attribution_dataset.tsv").write_text(rows, encoding="utf-8")
    return root


def test_a_conversion_is_one_purchase_of_its_last_clicked_impression(tmp_path: Path) -> None:
    found = history(a_folder(tmp_path))

    assert told(found) == [
        ("impression", "7", "400", 0),
        ("impression", "7", "400", 10_000),
        ("click", "7", "400", 11_000),
        ("impression", "7", "400", 20_000),
        ("impression", "8", "400", 20_000),
        ("impression", "8", "400", 20_000),
        ("impression", "9", "400", 30_000),
        ("purchase", "9", "400", 31_000),
        ("purchase", "7", "400", 50_000),
    ]
    bought = events_of(found.columns)[-1]
    assert isinstance(bought, Purchase)
    assert bought.request_id == "criteo-7-400-10-0"
    assert found.columns.event_time_ms[0] == 86_400_000


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (ROWS + a_row(-1), r"dataset\.tsv:8: '-1': timestamp"),
        (ROWS + a_row(1, click=3), r"dataset\.tsv:8: '3': click is not 0 or 1"),
        (ROWS + a_row(9, sold=(8, 1)), r"dataset\.tsv:8: '8': conversion_timestamp is not after"),
        (ROWS + "1\t2\n", r"dataset\.tsv:8: Expected 9 columns, got 2"),
        (HEADER, r"dataset\.tsv:1: .*there are no rows"),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, rows: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        history(a_folder(tmp_path, rows))


def test_the_display_log_is_refused_for_it_names_no_user_no_item_and_no_time(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.txt").write_text("0\t1\t1\n", encoding="utf-8")

    with pytest.raises(InvalidInput, match=r"train\.txt is Criteo's display log.* no time\."):
        history(tmp_path)


def test_a_folder_with_neither_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"dataset\.tsv cannot be read: No such file"):
        history(tmp_path)
