"""The rows that trained a model are made again, bit for bit, whatever came after."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from pipelines.features.lake import read_log
from pipelines.features.lake_command import app
from pipelines.features.logged import Which
from pipelines.features.provenance import Reading, read_again, reading_of, remember
from pipelines.features.replay import ItemFacts, Windows, training_rows
from pipelines.train.artefact import data_version
from pipelines.train.steps import hold_unobserved
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.events import Event
from rankstream.errors import DependencyUnavailable, InvalidRequest, NotFound
from services.features.lake_rows import PARTITION_BY, event_rows
from tests.parity.test_training_rows import ITEMS, a_log

FACTS = {item.item_id: ItemFacts(item.category, dict(item.attributes)) for item in ITEMS}
READ_MS = 1_800_000_000_000


def append(lake: Path, events: list[Event], *, offset: int) -> None:
    append_ms = max(event.event_time_ms for event in events)
    record = Record("events", 0, offset, append_ms, b"", encode_batch(events))
    rows = event_rows([record]).table
    write_deltalake(str(lake / "events"), rows, mode="append", partition_by=list(PARTITION_BY))


def train(lake: Path, *, until_ms: int) -> Reading:
    """What `pipelines run` does about its rows."""
    log = read_log(lake, until_ms=until_ms, limits=TimeLimits())
    rows = training_rows(log.columns, FACTS, until_ms=until_ms, windows=Windows())
    version = data_version(hold_unobserved(rows, log.columns.kind))
    reading = Reading(
        version, READ_MS, until_ms, log.version, log.ends(), Which.REPLAYED, {}, {}, 0
    )
    remember(lake, reading, FACTS)
    return reading


def test_rows_are_made_again_after_later_events_other_facts_and_a_vacuum(tmp_path: Path) -> None:
    events = a_log(1)
    until_ms = events[-1].event_time_ms + 86_400_000
    append(tmp_path, events[:300], offset=0)
    trained = train(tmp_path, until_ms=until_ms)
    append(tmp_path, events[300:], offset=1)
    changed = {"i0": ItemFacts("noir", {"year": 2026.0}, "Ü", "said of it", ("a", "b"))}
    later = Reading("later", READ_MS + 1, until_ms, 1, {0: 2}, Which.REPLAYED, {}, {}, 0)
    remember(tmp_path, later, FACTS | changed)
    table = DeltaTable(str(tmp_path / "events"))
    table.optimize.compact()
    table.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)

    out = tmp_path / "rows.parquet"
    done = CliRunner().invoke(
        app,
        [
            "rows",
            "--data-version",
            trained.data_version,
            "--lake",
            str(tmp_path),
            "--out",
            str(out),
        ],
    )

    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["same"] is True
    assert summary["ends"] == {"0": 1}
    assert summary["rows"] == pq.read_metadata(out).num_rows > 20
    _, items, _ = read_again(tmp_path, reading_of(tmp_path, "later"))
    assert items["i0"] == changed["i0"]
    # Only what had changed was added.
    catalogue = DeltaTable(str(tmp_path / "catalogue")).to_pyarrow_table()
    assert catalogue.num_rows == len(FACTS) + 1


def test_rows_of_days_that_are_gone_are_said_to_differ(tmp_path: Path) -> None:
    events = a_log(1)
    until_ms = events[-1].event_time_ms + 86_400_000
    append(tmp_path, events[:200], offset=0)
    append(tmp_path, events[200:], offset=1)
    trained = train(tmp_path, until_ms=until_ms)
    table = DeltaTable(str(tmp_path / "events"))
    table.delete('"offset" = 0')

    done = CliRunner().invoke(
        app, ["rows", "--data-version", trained.data_version, "--lake", str(tmp_path)]
    )

    assert json.loads(done.stdout.splitlines()[-1])["same"] is False


def test_what_was_never_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="knows of no training on data version 'abc'"):
        reading_of(tmp_path, "abc")

    neither = CliRunner().invoke(app, ["rows", "--lake", str(tmp_path)])
    assert isinstance(neither.exception, InvalidRequest)


def test_a_training_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")

    with pytest.raises(DependencyUnavailable, match="nothing was registered"):
        remember(tmp_path / "lake", Reading("v", 1, 2, 3, {}, Which.REPLAYED, {}, {}, 0), FACTS)


def test_the_commands_tell_in_json_lines(tmp_path: Path) -> None:
    events = a_log(2, n=40)
    append(tmp_path, events[:20], offset=0)
    append(tmp_path, events[20:], offset=1)
    run = CliRunner().invoke
    lake = ["--lake", str(tmp_path)]

    shown = json.loads(run(app, ["show", *lake]).stdout)
    compacted = json.loads(run(app, ["compact", *lake]).stdout.splitlines()[-1])
    rows = run(app, ["read", "--table", "events", "--version", "0", "--limit", "3", *lake])
    retained = json.loads(run(app, ["retain", "--days", "9999", *lake]).stdout.splitlines()[-1])

    assert (shown["table"], shown["rows"], shown["files"]) == ("events", 40, 2)
    assert compacted["table"] == "events"
    assert [json.loads(line)["offset"] for line in rows.stdout.splitlines()] == [0, 0, 0]
    assert retained == {"table": "events", "dropped": 0, "deleted": 0}
