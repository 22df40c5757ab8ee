"""MovieLens as events: the protocol, and what a malformed file gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from uuid import UUID, uuid5

import pytest

from pipelines.datasets.history import EVENTS_PER_BATCH, NAMESPACE, History, batches, ndjson
from pipelines.datasets.movielens import history, read_ratings
from rankstream.contracts.codec import decode_batch, decode_message, event_at
from rankstream.contracts.events import Click, Impression, ItemUpdate, Rate, UserUpdate
from rankstream.contracts.ids import partition_of
from rankstream.errors import InvalidInput

UNTIL_MS = 1_790_000_000_000
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
USER = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"


def a_folder(
    root: Path,
    *,
    inter: str = INTER + "1\t10\t4\t100\n2\t10\t3\t90\n1\t20\t5\t100\n",
    item: str = ITEM
    + "10\tFirst\t1995\tDrama War\n20\tSecond\tunkonwn\tDrama\n30\tThird\t1990\tDrama\n",
    user: str = USER + "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n",
) -> Path:
    for name, text in (("inter", inter), ("item", item), ("user", user)):
        (root / f"ml-100k.{name}").write_text(text, encoding="utf-8")
    return root


def a_history(root: Path, *, until_ms: int = UNTIL_MS) -> History:
    return history(read_ratings(a_folder(root)), until_ms=until_ms)


def test_a_rating_is_an_impression_then_a_click_if_liked_and_a_rating_event(
    tmp_path: Path,
) -> None:
    columns = a_history(tmp_path).columns

    events = [event_at(columns, row) for row in range(len(columns))]

    first = UNTIL_MS - 11_000  # the first rating: 10 s before the last, whose feedback ends it all
    assert [(e.kind, e.user_id, e.event_time_ms - first) for e in events] == [
        ("user_update", "2", -1_000),
        ("impression", "2", 0),
        ("rate", "2", 1_000),
        ("user_update", "1", 9_000),
        ("impression", "1", 10_000),
        ("impression", "1", 10_000),
        ("click", "1", 11_000),
        ("rate", "1", 11_000),
        ("click", "1", 11_000),
        ("rate", "1", 11_000),
    ]
    update, shown, click, rate = events[3], events[4], events[6], events[7]
    assert isinstance(update, UserUpdate)
    assert update.attributes == {"age": 24.0, "gender_male": 1.0}
    assert isinstance(shown, Impression)
    assert isinstance(click, Click)
    assert isinstance(rate, Rate)
    assert (shown.position, shown.category, rate.value) == (0, "War", 4.0)
    assert shown.request_id == click.request_id


def test_ids_are_uuids_that_the_shift_does_not_change(tmp_path: Path) -> None:
    one = a_history(tmp_path)
    other = a_history(tmp_path, until_ms=UNTIL_MS + 5)

    assert one.columns.event_id == other.columns.event_id
    assert len({one.columns.event_id[k : k + 16] for k in range(0, 160, 16)}) == 10
    assert UUID(bytes=one.columns.event_id[16:32]) == uuid5(NAMESPACE, f"{NAME}/impression")
    assert (other.columns.event_time_ms - one.columns.event_time_ms == 5).all()


NAME = "ml-100k-2-10"


def test_the_category_of_a_film_is_its_rarest_genre(tmp_path: Path) -> None:
    items = [item.update() for item in a_history(tmp_path).items]

    assert [(i.item_id, i.category, i.attributes) for i in items] == [
        ("10", "War", {"year": 1995.0}),
        ("20", "Drama", {}),
        ("30", "Drama", {"year": 1990.0}),
    ]


def test_records_hold_every_event_once_by_partition_in_order_of_time(tmp_path: Path) -> None:
    lines = "".join(f"{1 + k % 2}\t{10 + k}\t{1 + k % 5}\t{100 + k}\n" for k in range(900))
    films = "".join(f"{10 + k}\tFilm\t1990\tDrama\n" for k in range(900))
    found = history(
        read_ratings(a_folder(tmp_path, inter=INTER + lines, item=ITEM + films)), until_ms=UNTIL_MS
    )

    records = batches(found.columns, partitions=4)

    whole = Counter(event_at(found.columns, k).model_dump_json() for k in range(len(found.columns)))
    sent: Counter[str] = Counter()
    last: dict[int, int] = {}
    for record in records:
        columns = decode_batch(record.record)
        assert len(columns) == record.events <= EVENTS_PER_BATCH
        for k in range(len(columns)):
            event = event_at(columns, k)
            assert partition_of(event.user_id, 4) == record.partition
            assert event.event_time_ms >= last.get(record.partition, 0)
            last[record.partition] = event.event_time_ms
            sent[event.model_dump_json()] += 1
    assert sent == whole
    assert [r.first_ms for r in records] == sorted(r.first_ms for r in records)


def test_the_file_form_is_what_the_gateway_takes(tmp_path: Path) -> None:
    messages = [decode_message(line.encode()) for line in ndjson(a_history(tmp_path))]

    assert isinstance(messages[0], ItemUpdate)
    assert len(messages) == 3 + 10


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"inter": INTER + "1\t10\t4\n"}, r"ml-100k\.inter:2: 3 fields, expected 4"),
        ({"inter": INTER + "1\t10\tx\t5\n"}, r"inter:2: rating 'x' is not a number"),
        ({"inter": INTER + "1\t10\tnan\t5\n"}, r"inter:2: rating nan is outside 1\.\.5"),
        ({"inter": INTER + "1\t10\t4\t-5\n"}, r"inter:2: timestamp -5 is outside"),
        ({"inter": INTER + "9\t10\t4\t5\n"}, r"inter:2: user '9' is not in ml-100k\.user"),
        ({"inter": INTER + "1\t99\t4\t5\n"}, r"inter:2: item '99' is not in ml-100k\.item"),
        ({"inter": INTER + "1\t10\t4\t5\n1\t10\t4\t6\n"}, r"inter:3: user 1 has rated item 10"),
        ({"inter": INTER}, r"inter:1: there are no ratings"),
        ({"inter": "a\tb\n"}, r"inter:1: header 'a\\tb', expected"),
        ({"item": ITEM + "10\tFirst\t1995\t \n"}, r"item:2: there is no genre"),
        ({"item": ITEM + "10\tA\t1\tWar\n"}, r"item:2: year 1 is outside"),
        ({"user": USER + "1\t24\tX\t-\t-\n"}, r"user:2: gender 'X', expected M or F"),
        ({"user": USER + "1\t24\tM\t-\t-\n1\t25\tM\t-\t-\n"}, r"user:3: id '1' is also on line 2"),
        ({"user": USER + "\t24\tM\t-\t-\n"}, r"user:2: the id is empty"),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_ratings(a_folder(tmp_path, **files))


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_ratings(tmp_path)
