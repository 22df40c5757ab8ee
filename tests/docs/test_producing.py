"""docs/producing.md says what the code does: bytes, partitions, columns, limits."""

from __future__ import annotations

import re
from pathlib import Path

from rankstream import topics
from rankstream.contracts.base import CATEGORY_BYTES_MAX, ID_BYTES_MAX
from rankstream.contracts.batches import EVENTS_PER_BATCH_MAX
from rankstream.contracts.codec import decode_batch, decode_message, encode_batch, event_at
from rankstream.contracts.columns import POSITION_MAX, VALUE_MAX, Kind, TimeLimits
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.contracts.ids import murmur2, partition_of
from rankstream.features.rows import CONTEXT_ATTRIBUTES
from rankstream.pb import events_pb2 as pb
from services.ingest.intake import EVENT_BYTES_MAX
from services.ingest.settings import IngestSettings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "producing.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)
    return str(found)


def rows(title: str) -> list[list[str]]:
    """Cells of the first table below a line."""
    lines = iter(TEXT.split(title, 1)[1].splitlines())
    table = []
    for line in lines:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            break
    return table[2:]


def test_the_bytes_of_the_example_are_those_of_its_events() -> None:
    events: list[Event] = []
    for line in block("json").splitlines():
        message = decode_message(line.encode())
        assert not isinstance(message, ItemUpdate)
        events.append(message)
    written = re.findall(r"^((?:\s*[0-9a-f]{2}(?= |$))+)", block("hex"), re.M)

    record = bytes.fromhex("".join(written))

    columns = decode_batch(record)
    assert [event_at(columns, row) for row in range(len(columns))] == events
    assert encode_batch(events) == record


def test_users_are_where_the_table_has_them() -> None:
    for user, hashed, of_4, of_8 in rows("## The partition"):
        user_id = user.strip("`")

        assert murmur2(user_id.encode()) == int(hashed)
        assert (partition_of(user_id, 4), partition_of(user_id, 8)) == (int(of_4), int(of_8))


def test_columns_and_kinds_are_those_of_the_wire() -> None:
    numbers: dict[str, int] = {}
    for names, number, *_ in rows("## One record"):
        first = int(re.split(r"\D", number)[0])
        numbers |= {name: first + at for at, name in enumerate(re.findall(r"`(\w+)`", names))}
    kinds = dict(
        re.findall(r"(\d+) (\w+)", next(r[3] for r in rows("## One record") if "2" == r[1]))
    )

    assert numbers == {field.name: field.number for field in pb.EventBatch.DESCRIPTOR.fields}
    assert {int(number): name for number, name in kinds.items()} == {
        int(kind): kind.name.lower() for kind in Kind if kind is not Kind.TICK
    }


def test_limits_are_those_in_force() -> None:
    settings, limits = IngestSettings(), TimeLimits()

    assert {name: value for name, value in rows("## Limits")} == {
        "events in a record": str(EVENTS_PER_BATCH_MAX),
        "bytes of a record": str(topics.MAX_RECORD_BYTES),
        "bytes of a JSON event": str(EVENT_BYTES_MAX),
        "characters of user_id, item_id, request_id": str(ID_BYTES_MAX),
        "bytes of a category": str(CATEGORY_BYTES_MAX),
        "position": f"0 to {POSITION_MAX - 1}",
        "absolute value of `value`": str(round(VALUE_MAX)),
        "event time ahead of the broker's clock": f"{limits.ahead_ms_max} ms",
        "event time behind the broker's clock": f"{limits.behind_ms_max} ms",
    }
    assert settings.clock_skew_ms_max == limits.ahead_ms_max
    assert settings.event_age_ms_max == limits.behind_ms_max


def test_what_a_context_event_may_state_is_what_becomes_a_feature() -> None:
    assert [(name, ttl, unknown) for name, _, ttl, unknown in rows("## Items, users")] == [
        (f"`{known.name}`", str(known.ttl_ms // 60_000), f"{known.unknown:g}")
        for known in CONTEXT_ATTRIBUTES
    ]


def test_ingest_batches_as_the_page_says() -> None:
    settings = IngestSettings()

    assert f"count ({settings.batch_events_max}), size or {settings.batch_wait_ms} ms" in TEXT
