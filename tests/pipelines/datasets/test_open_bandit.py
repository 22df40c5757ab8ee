"""Open Bandit as events, with the propensities that the history has no place for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.datasets.open_bandit import history, read
from rankstream.contracts.columns import Kind
from rankstream.contracts.events import Impression
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import assert_sound, events_of, told

HEADER = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
    "user_feature_2,user_feature_3,user-item_affinity_0\n"
)
ROWS = HEADER + (
    "0,2019-11-24 00:00:10.008449+00:00,1,3,1,0.25,a,b,c,d,0.0\n"
    "1,2019-11-24 00:00:09+00:00,0,1,0,0.5,a,b,c,e,1.0\n"
    "2,2019-11-24 00:00:10.008500+00:00,0,2,0,1.0,a,b,c,d,0.0\n"
)
ITEMS = ",item_id,item_feature_0,item_feature_1,item_feature_2\n0,0,-0.5,aa,x\n1,1,0.75,bb,y\n"
FIRST_MS = 1574553609_000  # 24 November 2019, 0:00:09 UTC


def a_folder(root: Path, *, rows: str = ROWS, items: str = ITEMS) -> Path:
    folder = root / "random" / "men"
    folder.mkdir(parents=True)
    (folder / "men.csv").write_text(rows, encoding="utf-8")
    (folder / "item_context.csv").write_text(items, encoding="utf-8")
    return folder


def test_a_row_is_a_request_of_one_impression_of_a_segment(tmp_path: Path) -> None:
    found = history(a_folder(tmp_path))

    assert told(found) == [
        ("impression", "a-b-c-e", "0", 0),
        ("impression", "a-b-c-d", "1", 1_008),
        ("impression", "a-b-c-d", "0", 1_008),
        ("click", "a-b-c-d", "1", 2_008),
    ]
    shown = [e for e in events_of(found.columns) if isinstance(e, Impression)]
    assert [(e.request_id, e.position, e.category) for e in shown] == [
        ("obd-random-men-1", 0, "aa"),
        ("obd-random-men-0", 2, "bb"),
        ("obd-random-men-2", 1, "aa"),
    ]
    assert shown[0].event_time_ms == FIRST_MS
    assert [(i.item_id, dict(i.attributes)) for i in found.items] == [
        ("0", {"feature_0": -0.5}),
        ("1", {"feature_0": 0.75}),
    ]


def test_propensities_stand_beside_aligned_with_the_impressions(tmp_path: Path) -> None:
    logged = read(a_folder(tmp_path), until_ms=1_790_000_000_000)

    kinds = logged.history.columns.kind[logged.impression]
    assert (kinds == Kind.IMPRESSION).all()
    assert np.array_equal(logged.propensity, [0.5, 0.25, 1.0])
    assert_sound(logged.history)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"rows": ROWS + "3,2019-11-24 00:00:10+00:00,1,4,1,0.25,a,b,c,d,0\n"}, r"men\.csv:5: '4'"),
        ({"rows": ROWS + "3,2019-11-24 00:00:10+00:00,1,3,2,0.25,a,b,c,d,0\n"}, r":5: '2': click"),
        ({"rows": ROWS + "3,2019-11-24 00:00:10+00:00,1,3,1,0,a,b,c,d,0\n"}, r":5: '0\.0': prop"),
        ({"rows": ROWS + "3,2019-11-24 00:00:10+00:00,1,3,1,nan,a,b,c,d,0\n"}, r":5: 'nan': prop"),
        ({"rows": ROWS + "3,2019-11-24 00:00:10+00:00,7,3,1,1,a,b,c,d,0\n"}, r":5: '7': .*item_co"),
        ({"rows": ROWS + "3,yesterday,1,3,1,1,a,b,c,d,0\n"}, r"men\.csv:5: timestamp: .*yesterday"),
        ({"rows": HEADER}, r"men\.csv:1: .*there are no rows"),
        ({"items": ITEMS + "2,1,0,cc,z\n"}, r"item_context\.csv:4: '1': the id is there twice"),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        history(a_folder(tmp_path, **files))
