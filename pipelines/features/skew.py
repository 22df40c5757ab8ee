"""Skew: do the features that the ranker served equal those recomputed from the log?

    python -m pipelines.features.skew --bootstrap 127.0.0.1:9092 --sample 1000

Every slate of topic `served` holds the vectors that were scored, the time, and how far the log had
been folded into each row (stamps). This job folds `events`, `feature-updates` and `items` up to the
stamps of a sample, takes the `snapshot` as of the time served, and compares bit by bit. Columns of
a rating table are made again with the table that the slate names, if its artefact is at hand.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import typer

from pipelines import command
from rankstream import topics
from rankstream.adapters.kafka import LogReader, Record
from rankstream.adapters.rating_table_file import read_rating_table
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from rankstream.features.attributes import ITEM_ATTRIBUTES
from rankstream.features.deltas import Entity
from rankstream.features.items import ROWS
from rankstream.features.rating_table import FIRST, NO_RATINGS, RatingTable
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ROW,
    ITEM_ROW,
    USER_ROW,
    Rows,
    empty_rows,
)
from rankstream.features.snapshot import snapshot
from rankstream.pb import events_pb2 as pb
from rankstream.stream.items import ItemPartition
from rankstream.stream.partition import FoldSettings, UserPartition

EXAMPLES_MAX: Final = 10
_POLL_RECORDS: Final = 5_000
_POLL_TIMEOUT_S: Final = 1.0

# (partition, offset, key): the row of a key as the record at this offset left it.
Wanted: TypeAlias = tuple[int, int, str]
# By (partition, offset).
Keys: TypeAlias = dict[tuple[int, int], set[str]]
_NO_TABLES: Final[Mapping[str, RatingTable]] = {}


@dataclass(frozen=True)
class Example:
    """One feature that differs."""

    request_id: str
    item_id: str
    feature: str
    served: float
    recomputed: float


@dataclass
class Skew:
    """What was compared. `unverifiable` slates rest on records that the log no longer has, or on
    another feature definition; they are in no other count. Of `tableless` slates the columns of
    their rating table, which is not at hand, were not compared."""

    slates: int = 0
    items: int = 0
    features: int = 0
    skewed_features: int = 0
    skewed_slates: int = 0
    unverifiable: int = 0
    tableless: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class RowsAt:
    """Rows by where they stood; `described` is (partition, offset) of `items` -> Item."""

    users: Mapping[Wanted, Rows]
    items: Mapping[Wanted, Rows]
    categories: Mapping[Wanted, Rows]
    queries: Mapping[Wanted, Rows]
    locations: Mapping[Wanted, Rows]
    described: Mapping[tuple[int, int], pb.Item]


def compare(
    slates: Sequence[pb.ServedSlate], rows: RowsAt, tables: Mapping[str, RatingTable] = _NO_TABLES
) -> Skew:
    """Recompute the features of these slates, and count what differs in any bit.

    Args:
        tables: rating tables by id.
    """
    skew = Skew()
    for slate in slates:
        table = tables.get(slate.rating_table) if slate.rating_table else NO_RATINGS
        known = slate.spec_id == spec.SPEC_ID
        recomputed = _recompute(slate, rows, table or NO_RATINGS) if known else None
        if recomputed is None:
            skew.unverifiable += 1
            continue
        served = np.frombuffer(slate.features, "<f4").reshape(recomputed.shape)
        if table is None:
            skew.tableless += 1
            served, recomputed = served[:, :FIRST], recomputed[:, :FIRST]
        skew.slates += 1
        skew.items += len(recomputed)
        skew.features += recomputed.size
        bits = (np.ascontiguousarray(one).view("<u4") for one in (served, recomputed))
        places = np.argwhere(np.not_equal(*bits))
        skew.skewed_features += len(places)
        skew.skewed_slates += bool(len(places))
        for slot, feature in places[: EXAMPLES_MAX - len(skew.examples)].tolist():
            skew.examples.append(
                Example(
                    slate.request_id,
                    slate.item_id[slot],
                    spec.NAMES[feature],
                    float(served[slot, feature]),
                    float(recomputed[slot, feature]),
                )
            )
    return skew


def _recompute(
    slate: pb.ServedSlate, rows: RowsAt, table: RatingTable
) -> npt.NDArray[np.float32] | None:
    """Features of a slate, shape (slots, spec.WIDTH); None if a record behind them is gone."""
    user = _row(rows.users, slate.user_stamp, slate.user_id, USER_ROW)
    items: list[Rows] = []
    categories: list[Rows] = []
    for slot, (item_id, category) in enumerate(zip(slate.item_id, slate.category, strict=True)):
        item = _row(rows.items, slate.item_stamp[slot], item_id, ITEM_ROW)
        of_category = _row(rows.categories, slate.category_stamp[slot], category, CATEGORY_ROW)
        if item is None or of_category is None:
            return None
        stamp = slate.item_stamp[slot]
        if stamp.items_offset >= 0:
            described = rows.described.get((stamp.partition, stamp.items_offset))
            if described is None:
                return None
            _describe(item, described)
        items.append(item)
        categories.append(of_category)
    query = _row(rows.queries, slate.query_stamp, slate.query, CONTEXT_ROW)
    location = _row(rows.locations, slate.location_stamp, slate.location, CONTEXT_ROW)
    if user is None or query is None or location is None or not items:
        return None
    vectors = snapshot(
        user,
        np.concatenate(items),
        np.concatenate(categories),
        np.stack([query, location], axis=1),
        np.array([slate.served_time_ms], np.int64),
    )
    table.fill(vectors, np.array([id64(item_id) for item_id in slate.item_id], np.uint64), user)
    return vectors


def read_tables(slates: Iterable[pb.ServedSlate], artifacts: Path | None) -> dict[str, RatingTable]:
    """The rating tables that slates name, by id, as far as the folder of artefacts has them."""
    found: dict[str, RatingTable] = {}
    for table_id in {slate.rating_table for slate in slates} - {""}:
        if artifacts is None or Path(table_id).name != table_id:
            continue
        with suppress(InvalidArtifact):
            found[table_id] = read_rating_table(
                artifacts / "retrieval" / table_id, table_id=table_id
            )
    return found


def _row(
    rows: Mapping[Wanted, Rows], stamp: pb.Stamp, key: str, dtype: np.dtype[np.void]
) -> Rows | None:
    if stamp.offset < 0:
        return empty_rows(1, dtype)
    found = rows.get((stamp.partition, stamp.offset, key))
    return None if found is None else found.copy()


def _describe(row: Rows, item: pb.Item) -> None:
    row["category"] = item.category.encode()
    row["withdrawn"] = int(item.withdrawn)
    row["attributes"] = [[item.attributes.get(name, np.nan) for name in ITEM_ATTRIBUTES]]


def sample_slates(served: Sequence[bytes], sample: int, *, seed: int) -> list[pb.ServedSlate]:
    """Up to `sample` of the slates that have items, in the order served."""
    slates = [slate for body in served if (slate := pb.ServedSlate.FromString(body)).item_id]
    chosen = np.random.default_rng(seed).permutation(len(slates))[:sample]
    return [slates[place] for place in np.sort(chosen).tolist()]


async def measure(
    bootstrap: str,
    sample: int,
    *,
    seed: int,
    settings: FoldSettings,
    step: command.Step,
    artifacts: Path | None = None,
) -> Skew:
    """Read the log and compare a sample of slates.

    Args:
        artifacts: folder where rating tables are looked for; None: nowhere.

    Raises: DependencyUnavailable: Kafka does not answer.
    """
    served = [
        r.value async for r in _records(bootstrap, topics.SERVED.name, step) if r.value is not None
    ]
    slates = sample_slates(served, sample, seed=seed)
    users: Keys = defaultdict(set)
    wanted: dict[Entity, Keys] = {entity: defaultdict(set) for entity in Entity}
    described: set[tuple[int, int]] = set()
    for slate in slates:
        users[slate.user_stamp.partition, slate.user_stamp.offset].add(slate.user_id)
        for item_id, stamp in zip(slate.item_id, slate.item_stamp, strict=True):
            wanted[Entity.ITEM][stamp.partition, stamp.offset].add(item_id)
            described.add((stamp.partition, stamp.items_offset))
        for category, stamp in zip(slate.category, slate.category_stamp, strict=True):
            wanted[Entity.CATEGORY][stamp.partition, stamp.offset].add(category)
        for entity, key, stamp in (
            (Entity.QUERY, slate.query, slate.query_stamp),
            (Entity.LOCATION, slate.location, slate.location_stamp),
        ):
            wanted[entity][stamp.partition, stamp.offset].add(key)
    found = await _item_rows(bootstrap, wanted, settings, step)
    rows = RowsAt(
        users=await _user_rows(bootstrap, users, settings, step),
        items=found[Entity.ITEM],
        categories=found[Entity.CATEGORY],
        queries=found[Entity.QUERY],
        locations=found[Entity.LOCATION],
        described={
            (r.partition, r.offset): pb.Item.FromString(r.value)
            async for r in _records(bootstrap, topics.ITEMS.name, step)
            # Others may be what the stream refuses.
            if r.value is not None and (r.partition, r.offset) in described
        },
    )
    return compare(slates, rows, read_tables(slates, artifacts))


async def _user_rows(
    bootstrap: str,
    wanted: Keys,
    settings: FoldSettings,
    step: command.Step,
) -> dict[Wanted, Rows]:
    last = _last(wanted)
    folds: dict[int, UserPartition] = {}
    found: dict[Wanted, Rows] = {}
    async for record in _records(bootstrap, topics.EVENTS.name, step):
        partition, offset = record.partition, record.offset
        if offset > last.get(partition, -1):
            continue
        if partition not in folds:
            folds[partition] = UserPartition(partition, topics.FEATURE_UPDATES.partitions, settings)
        folds[partition].fold([record])
        _keep(found, record, wanted, USER_ROW, folds[partition].rows)
    return found


async def _item_rows(
    bootstrap: str,
    wanted: Mapping[Entity, Keys],
    settings: FoldSettings,
    step: command.Step,
) -> dict[Entity, dict[Wanted, Rows]]:
    last = _last([place for keys in wanted.values() for place in keys])
    folds: dict[int, ItemPartition] = {}
    found: dict[Entity, dict[Wanted, Rows]] = {entity: {} for entity in Entity}
    async for record in _records(bootstrap, topics.FEATURE_UPDATES.name, step):
        partition, offset = record.partition, record.offset
        if offset > last.get(partition, -1):
            continue
        if partition not in folds:
            folds[partition] = ItemPartition(partition, settings.state_ttl_ms)
        fold = folds[partition]
        fold.fold_updates([record])
        for entity, keys in wanted.items():
            _keep(found[entity], record, keys, ROWS[entity], partial(fold.rows, entity))
    return found


def _keep(
    found: dict[Wanted, Rows],
    record: Record,
    wanted: Keys,
    dtype: np.dtype[np.void],
    rows: Callable[[set[str]], list[tuple[str, bytes]]],
) -> None:
    keys = wanted.get((record.partition, record.offset))
    if keys:
        for key, packed in rows(keys):
            found[record.partition, record.offset, key] = np.frombuffer(packed, dtype)


def _last(wanted: Iterable[tuple[int, int]]) -> dict[int, int]:
    last: dict[int, int] = {}
    for partition, offset in wanted:
        last[partition] = max(offset, last.get(partition, -1))
    return last


async def _records(bootstrap: str, topic: str, step: command.Step) -> AsyncIterator[Record]:
    """Records that were in the topic when this began, each partition in order."""
    reader = LogReader(bootstrap, [topic], client_id="skew")
    done = 0
    try:
        while not reader.caught_up:
            records = await reader.poll(_POLL_RECORDS, _POLL_TIMEOUT_S)
            for record in records:
                yield record
            done += len(records)
            step(f"skew: {topic}", done, done + sum(reader.lag().values()))
    finally:
        await reader.close()


app = typer.Typer(add_completion=False, help=__doc__)
_DEFAULTS: Final = FoldSettings()


@app.command()
def skew(
    bootstrap: Annotated[str, typer.Option(help="Kafka, host:port")] = "127.0.0.1:9092",
    sample: Annotated[int, typer.Option(min=1, help="slates to compare")] = 1000,
    seed: Annotated[int, typer.Option(help="of the sample")] = 1,
    artifacts: Annotated[
        Path | None, typer.Option(help="folder of artefacts, for the rating tables that were used")
    ] = None,
    lateness_ms: Annotated[
        int, typer.Option(envvar="FEATURES_LATENESS_MS")
    ] = _DEFAULTS.lateness_ms,
    click_window_ms: Annotated[
        int, typer.Option(envvar="FEATURES_CLICK_WINDOW_MS")
    ] = _DEFAULTS.click_window_ms,
    conversion_window_ms: Annotated[
        int, typer.Option(envvar="FEATURES_CONVERSION_WINDOW_MS")
    ] = _DEFAULTS.conversion_window_ms,
    session_gap_ms: Annotated[
        int, typer.Option(envvar="FEATURES_SESSION_GAP_MS")
    ] = _DEFAULTS.session_gap_ms,
    dedupe_ms: Annotated[int, typer.Option(envvar="FEATURES_DEDUPE_MS")] = _DEFAULTS.dedupe_ms,
    state_ttl_ms: Annotated[
        int, typer.Option(envvar="FEATURES_STATE_TTL_MS")
    ] = _DEFAULTS.state_ttl_ms,
    clock_skew_ms_max: Annotated[
        int, typer.Option(envvar="FEATURES_CLOCK_SKEW_MS_MAX")
    ] = _DEFAULTS.limits.ahead_ms_max,
    event_age_ms_max: Annotated[
        int, typer.Option(envvar="FEATURES_EVENT_AGE_MS_MAX")
    ] = _DEFAULTS.limits.behind_ms_max,
) -> None:
    """Compare; the settings must be those of the features service. JSON on the last line."""
    settings = FoldSettings(
        lateness_ms=lateness_ms,
        click_window_ms=click_window_ms,
        conversion_window_ms=conversion_window_ms,
        session_gap_ms=session_gap_ms,
        dedupe_ms=dedupe_ms,
        state_ttl_ms=state_ttl_ms,
        limits=TimeLimits(ahead_ms_max=clock_skew_ms_max, behind_ms_max=event_age_ms_max),
    )
    with command.steps() as step:
        work = measure(
            bootstrap, sample, seed=seed, settings=settings, step=step, artifacts=artifacts
        )
        found = asyncio.run(work)
    typer.echo(json.dumps(asdict(found)))


if __name__ == "__main__":
    sys.exit(command.run(app))
