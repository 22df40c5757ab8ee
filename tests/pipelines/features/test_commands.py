"""The commands on a real Kafka and Redis: a lake goes in, features come out of Redis."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner, Result

from pipelines.features.__main__ import app
from rankstream import topics
from rankstream.adapters.kafka import EventProducer, Record
from rankstream.contracts.codec import encode_batch, encode_item
from rankstream.contracts.events import ItemUpdate
from rankstream.errors import InvalidInput
from services.features.lake_rows import PARTITION_BY, event_rows
from tests.parity.events import START_MS, an_event

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def features(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def a_lake(lake: Path) -> None:
    about: dict[str, Any] = {"item_id": "i1", "category": "war", "location": "home"}
    events = [
        an_event("impression", 1, **about),
        an_event("click", 2, after_ms=1_000, **about),
        an_event("rate", 3, after_ms=2_000, value=5.0, **about),
    ]
    record = Record("events", 1, 41, START_MS + 5_000, b"", encode_batch(events))
    rows = event_rows([record]).table
    write_deltalake(str(lake / "events"), rows, partition_by=list(PARTITION_BY))


async def send_item(bootstrap: str) -> None:
    item = ItemUpdate(
        item_id="i1", category="war", updated_ms=START_MS, attributes={"year": 1979.0}
    )
    producer = EventProducer(bootstrap, client_id="test")
    await producer.send(topics.ITEMS.name, encode_item(item), key=b"i1")
    await producer.flush_and_close()


def test_a_lake_becomes_feature_rows_and_they_become_redis_again(
    kafka_topics: str, clean_redis: str, tmp_path: Path
) -> None:
    a_lake(tmp_path / "lake")
    asyncio.run(send_item(kafka_topics))
    offline = ("--offline", str(tmp_path / "rows"))
    store = ("--redis-url", clean_redis, "--registry", str(tmp_path / "registry.db"))
    until = ("--until-ms", str(START_MS + 10_000))

    applied = features("apply", *store, *offline)
    filled = features(
        *("backfill", "--lake", str(tmp_path / "lake"), "--bootstrap", kafka_topics),
        *offline,
        *until,
    )
    written = features("materialize", *store, *offline, *until)
    asked = ("--user-id", "ann", "--item-id", "i1", "--category", "war", "--location", "home")
    shown = features("show", *asked, *store)

    for done in (applied, filled, written, shown):
        assert done.exit_code == 0, done.output
    counts = json.loads(filled.stdout.splitlines()[-1])
    assert counts["events"] == 3
    # Three moments of the user and of the category; one more of the item: what is known of it.
    assert counts["rows"] == {
        "user_state": 3,
        "item_state": 4,
        "category_state": 3,
        "query_state": 0,
        "location_state": 3,
    }
    assert json.loads(written.stdout.splitlines()[-1]) == {
        name: {"rows": rows, "written": rows, "kept": 0}
        for name, rows in (
            ("user_state", 1),
            ("item_state", 1),
            ("category_state", 1),
            ("query_state", 0),
            ("location_state", 1),
        )
    }
    vector = json.loads(shown.stdout)
    assert vector["item_year"] == 1979.0
    assert vector["user_log_impressions"] > 0
    assert vector["location_log_impressions"] > 0 == vector["query_log_impressions"]


def test_a_lake_without_events_is_refused_by_name(kafka_topics: str, tmp_path: Path) -> None:
    done = features("backfill", "--lake", str(tmp_path), "--bootstrap", kafka_topics)

    assert isinstance(done.exception, InvalidInput)
