"""Rows of what was served are those of a replay, one per served item that was seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipelines.features.lake import Logged, read_log
from pipelines.features.lake_command import app
from pipelines.features.logged import (
    LABELS,
    SERVED,
    Made,
    Outcome,
    Slates,
    Which,
    logged_rows,
    make_rows,
    read_slates,
)
from pipelines.features.provenance import Reading, remember
from pipelines.features.replay import ItemFacts, TrainingRows, Windows
from pipelines.train.artefact import data_version
from pipelines.train.steps import hold_unobserved
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import InvalidInput
from rankstream.features import spec
from rankstream.stream.partition import FoldSettings
from tests.parity.events import START_MS, an_event
from tests.parity.stream import Stream
from tests.parity.test_training_rows import ITEMS, a_log
from tests.pipelines.features.slates import DAY_MS, a_slate, append_slates, write_lake

FACTS = {item.item_id: ItemFacts(item.category, dict(item.attributes)) for item in ITEMS}
ONE_EVENT = decode_batch(encode_batch([an_event("visit", 1)]))
NEVER = np.array([feature.default for feature in spec.FEATURES], np.float32)
UNTIL_MS = START_MS + 1_000_000


def made(lake: Path, which: Which, from_ms: int = 0) -> tuple[Made, Logged, Slates]:
    until_ms = START_MS + 90 * DAY_MS
    log = read_log(lake, until_ms=until_ms, limits=TimeLimits())
    slates = read_slates(lake, until_ms=until_ms)
    rows = make_rows(
        log.columns,
        FACTS,
        slates,
        which,
        from_ms=from_ms,
        until_ms=until_ms,
        windows=Windows(),
    )
    return rows, log, slates


def by_impression(
    rows: TrainingRows,
) -> dict[tuple[str, str, int], tuple[bytes, tuple[int, int], bytes]]:
    """(user, item, time) -> features, labels, recent items; every bit of them."""
    return {
        (rows.users[rows.user[k]], rows.items[rows.item[k]], int(rows.time_ms[k])): (
            rows.features[k].tobytes(),
            (int(rows.clicked[k]), int(rows.purchased[k])),
            rows.recent[k].tobytes(),
        )
        for k in range(len(rows))
    }


@pytest.mark.parametrize("seed", range(3))
def test_what_was_served_is_what_a_replay_makes_bit_by_bit(tmp_path: Path, seed: int) -> None:
    write_lake(tmp_path, a_log(seed))

    logged, _, slates = made(tmp_path, Which.LOGGED)
    replayed, _, _ = made(tmp_path, Which.REPLAYED)

    assert by_impression(logged.rows) == by_impression(replayed.rows)
    assert len(logged.rows) == logged.logged == len(replayed.rows) > 30
    # An impression that was repeated is one row.
    repeated = slates.served.num_rows - len(logged.rows)
    assert logged.outcomes.get(Outcome.REPEATED, 0) == repeated
    assert logged.counts()["replayed"] == 0


@pytest.mark.parametrize("which", Which)
def test_rows_from_a_time_on_are_the_last_of_all(tmp_path: Path, which: Which) -> None:
    write_lake(tmp_path, a_log(1), served=35)
    every, _, _ = made(tmp_path, which)
    from_ms = int(every.rows.time_ms[len(every.rows) // 2])

    found, _, _ = made(tmp_path, which, from_ms)

    wanted = every.rows.take(np.flatnonzero(every.rows.time_ms >= from_ms))
    assert by_impression(found.rows) == by_impression(wanted)
    assert 0 < len(found.rows) < len(every.rows)
    earlier = found.outcomes.get(Outcome.EARLIER, 0)
    assert earlier == every.logged - found.logged
    assert (earlier > 0) == (which is not Which.REPLAYED)


@pytest.mark.parametrize("which", Which)
def test_rows_from_after_the_log_are_none(tmp_path: Path, which: Which) -> None:
    write_lake(tmp_path, a_log(1, n=60))

    with pytest.raises(InvalidInput, match="No rows were made"):
        made(tmp_path, which, START_MS + 80 * DAY_MS)


def test_what_no_slate_has_is_replayed(tmp_path: Path) -> None:
    write_lake(tmp_path, a_log(1), served=25)

    both, _, _ = made(tmp_path, Which.BOTH)
    replayed, _, _ = made(tmp_path, Which.REPLAYED)

    assert by_impression(both.rows) == by_impression(replayed.rows)
    assert np.all(np.diff(both.rows.time_ms) >= 0)
    assert 0 < both.logged < len(both.rows)
    assert both.counts()["replayed"] == len(both.rows) - both.logged


def test_a_lake_where_nothing_was_served_has_replayed_rows_only(tmp_path: Path) -> None:
    write_lake(tmp_path, a_log(1), served=0)

    both, _, _ = made(tmp_path, Which.BOTH)

    assert both.counts() == {"logged": 0, "replayed": len(both.rows)}
    with pytest.raises(InvalidInput, match=r"of 0 items served .* \(nothing was served\)"):
        made(tmp_path, Which.LOGGED)
    for name in ("served", "labels"):
        assert read_slates(tmp_path / "no", until_ms=1).ends() == ({}, {}), name


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_lake(tmp_path, a_log(1, n=60))
    table = DeltaTable(str(tmp_path / "served"))
    for file in table.file_uris():
        Path(file).write_bytes(b"no parquet")

    with pytest.raises(InvalidInput, match="served cannot be read"):
        read_slates(tmp_path, until_ms=START_MS + 90 * DAY_MS)


SLOTS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from("ab"),
            "request_id": st.sampled_from("rs"),
            "item_id": st.sampled_from("xy"),
            "served_time_ms": st.integers(START_MS, START_MS + 5),
            "spec_id": st.sampled_from([spec.SPEC_ID, spec.SPEC_ID, "another"]),
            "width": st.sampled_from([spec.WIDTH, spec.WIDTH, spec.WIDTH - 1, None]),
            "degraded": st.sampled_from([[], ["no_history"], ["features_timeout"]]),
            "idle": st.sampled_from([20.0, 3.0, 0.0]),
        }
    ),
    max_size=12,
)
LABELLED = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from("ab"),
            "request_id": st.sampled_from("rs"),
            "item_id": st.sampled_from("xy"),
            "impression_time_ms": st.integers(START_MS, START_MS + 5),
            "status": st.sampled_from([1, 2, 2]),
            "clicked": st.integers(0, 1),
            "position": st.integers(0, 2),
            "purchased": st.integers(0, 1),
        }
    ),
    max_size=8,
    unique_by=lambda label: (
        (label["user_id"], label["request_id"], label["item_id"])
        + ((label["impression_time_ms"],) if label["status"] == 2 else ())
    ),
)
IDLE = spec.NAMES.index("item_log_idle_s")


def a_vector(slot: dict[str, Any], number: int) -> list[float] | None:
    if slot["width"] is None:
        return None
    vector = NEVER.copy()
    vector[0], vector[IDLE] = number, slot["idle"]
    kept: list[float] = vector[: slot["width"]].tolist()
    return kept


def tables(slots: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]) -> Slates:
    where = [
        {"partition": k % 2, "offset": k, "row": 0} for k in range(max(map(len, (slots, labels))))
    ]
    served = [{**where[k], **slot, "features": a_vector(slot, k)} for k, slot in enumerate(slots)]
    rows = [{**where[k], **label} for k, label in enumerate(labels)]
    return Slates(
        pa.Table.from_pylist(served, schema=SERVED), pa.Table.from_pylist(rows, schema=LABELS)
    )


def by_hand(
    slots: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]
) -> tuple[Counter[str], set[tuple[Any, ...]]]:
    """Outcomes, and of rows (slot, user, item, time, clicked, purchased, position), one by one."""

    def key(of: dict[str, Any]) -> tuple[str, str, str]:
        return of["user_id"], of["request_id"], of["item_id"]

    outcomes, rows = Counter[str](), set()
    for one in {key(slot) for slot in slots}:
        mine = [k for k, slot in enumerate(slots) if key(slot) == one]
        own = [label for label in labels if key(label) == one]
        final = sorted((x for x in own if x["status"] == 2), key=lambda x: x["impression_time_ms"])
        outcomes[Outcome.REPEATED] += len(mine) - 1
        if not own:
            outcomes[Outcome.UNSEEN] += 1
            continue
        if not final:
            outcomes[Outcome.OPEN] += 1
            continue
        label, seen_ms = final[0], final[0]["impression_time_ms"]
        mine.sort(key=lambda k: (k % 2, k))  # as the log has them
        before = [k for k in mine if slots[k]["served_time_ms"] <= seen_ms]
        chosen = (
            max(before, key=lambda k: slots[k]["served_time_ms"])
            if before
            else min(mine, key=lambda k: slots[k]["served_time_ms"])
        )
        slot = slots[chosen]
        if slot["spec_id"] != spec.SPEC_ID:
            outcomes[Outcome.SPEC_MISMATCH] += 1
        elif slot["width"] != spec.WIDTH:
            outcomes[Outcome.NO_VECTOR] += 1
        elif "features_timeout" in slot["degraded"]:
            outcomes[Outcome.FEATURES_TIMEOUT] += 1
        elif slot["idle"] == 0.0:
            outcomes[Outcome.EVENT_NOT_BEFORE] += 1
        else:
            outcomes[Outcome.ROW] += 1
            names = ("clicked", "purchased", "position")
            rows.add((chosen, one[0], one[2], seen_ms, *(label[name] for name in names)))
    return +outcomes, rows


@given(SLOTS, LABELLED)
@settings(max_examples=80, deadline=None)
def test_each_served_item_has_one_outcome_and_rows_are_joined_as_by_hand(
    slots: list[dict[str, Any]], labels: list[dict[str, Any]]
) -> None:
    rows, outcomes = logged_rows(tables(slots, labels), ONE_EVENT, until_ms=UNTIL_MS)

    expected, wanted = by_hand(slots, labels)
    found = {
        (int(number), rows.users[user], rows.items[item], *rest)
        for number, user, item, *rest in zip(
            rows.features[:, 0].tolist(),
            rows.user.tolist(),
            rows.item.tolist(),
            rows.time_ms.tolist(),
            rows.clicked.tolist(),
            rows.purchased.tolist(),
            rows.position.tolist(),
            strict=True,
        )
    }
    assert found == wanted
    assert len(rows) == len(wanted)
    assert outcomes == dict(expected)
    assert sum(outcomes.values()) == len(slots)


@pytest.mark.parametrize("passed", [0, 5])
def test_the_rows_that_were_logged_are_found_again(tmp_path: Path, passed: int) -> None:
    events = a_log(2)
    write_lake(tmp_path, events, served=30)
    every, _, _ = made(tmp_path, Which.BOTH)
    from_ms = int(every.rows.time_ms[passed])
    both, log, slates = made(tmp_path, Which.BOTH, from_ms)
    version = data_version(hold_unobserved(both.rows, log.columns.kind))
    until_ms = START_MS + 90 * DAY_MS
    remember(
        tmp_path,
        Reading(version, 1, until_ms, log.version, log.ends(), Which.BOTH, *slates.ends(), from_ms),
        FACTS,
    )
    # The same impressions again, with vectors that nobody has seen then.
    live = Stream(FoldSettings())
    late = [a_slate(live, event) for event in events if event.kind == "impression"]
    append_slates(tmp_path, late, offset=1_000)

    again = CliRunner().invoke(app, ["rows", "--data-version", version, "--lake", str(tmp_path)])

    summary = json.loads(again.stdout.splitlines()[-1])
    assert summary["same"] is True
    assert (summary["logged"], summary["rows"]) == (both.logged, len(both.rows))
    changed, _, _ = made(tmp_path, Which.BOTH, from_ms)
    assert changed.logged > both.logged
