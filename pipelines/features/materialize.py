"""From feature rows to Redis, through Feast: what the stream wrote and is ahead stays.

A way back when Redis was emptied and the log is too short, or too long, to fold again; and a way
to fill another online store. `online_store` decides, row by row and inside Redis, which stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
from feast import FeatureStore
from feast.infra.provider import get_provider
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from pipelines.features.asof import MEMORY, THREADS
from pipelines.features.backfill import FILE, TIME
from pipelines.features.definitions import TTL
from pipelines.features.online_store import Write
from rankstream.adapters.redis_rows import FEATURE, VIEWS, View
from rankstream.errors import InvalidInput

BATCH_ROWS: Final = 1_000


@dataclass(frozen=True)
class Materialized:
    """Of one view: newest `rows` of entities, those `written`, those for which Redis' stayed."""

    rows: int
    written: int
    kept: int


def materialize(
    store: FeatureStore,
    offline: Path,
    *,
    until_ms: int,
    step: Callable[[str, int, int], None],
) -> dict[str, Materialized]:
    """Offer each entity's newest row found by `until_ms`, if it is within its view's TTL.

    Raises: InvalidInput: there are no feature rows; views before are written.
    """
    provider = get_provider(store.config)
    done = {}
    for place, view in enumerate(VIEWS):
        step("materialize", place, len(VIEWS))
        feast_view = store.get_feature_view(view.name)
        rows, written = 0, [0]
        for batch in _newest(offline / view.name / FILE, view, until_ms):
            writes = _writes(view, batch)
            rows += len(writes)
            provider.online_write_batch(store.config, feast_view, writes, written.append)
        done[view.name] = Materialized(rows, sum(written), rows - sum(written))
    step("materialize", len(VIEWS), len(VIEWS))
    return done


def _newest(path: Path, view: View, until_ms: int) -> Iterator[pa.RecordBatch]:
    """The newest row of each entity, some at a time: its place first, then its bytes."""
    ttl_ms = int(TTL[view.name].total_seconds() * 1000)
    alive = f" AND epoch_ms({TIME}) >= {until_ms - ttl_ms}" if ttl_ms else ""
    query = f"""
        WITH newest AS (
            SELECT arg_max(file_row_number, {TIME}) AS place FROM read_parquet($path)
            WHERE epoch_ms({TIME}) <= {until_ms}{alive} GROUP BY {view.join_key})
        SELECT {view.join_key}, {FEATURE}, {TIME} FROM read_parquet($path)
        WHERE file_row_number IN (SELECT place FROM newest)
    """
    with duckdb.connect(config={"memory_limit": MEMORY, "threads": THREADS}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            found = connection.sql(query, params={"path": str(path)})
            yield from found.to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            raise InvalidInput(
                f"invalid_input: feature rows {path}: {str(error)[:300]}. Nothing of"
                f" {view.name} was written. Run `python -m pipelines.features backfill`."
            ) from None


def _writes(view: View, batch: pa.RecordBatch) -> list[Write]:
    columns = (batch[name].to_pylist() for name in (view.join_key, FEATURE))
    times = batch[TIME].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_pylist()
    return [
        (
            EntityKey(join_keys=[view.join_key], entity_values=[Value(string_val=entity)]),
            {FEATURE: Value(bytes_val=state)},
            datetime.fromtimestamp(from_ms / 1000, UTC),
            None,
        )
        for entity, state, from_ms in zip(*columns, times, strict=True)
    ]
