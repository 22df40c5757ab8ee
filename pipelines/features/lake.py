"""The log as it is kept: events out of the lake's Delta table, items out of their topic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.features.replay import ItemFacts
from rankstream import topics
from rankstream.adapters.kafka import LogReader
from rankstream.contracts.batches import TEXT_COLUMNS
from rankstream.contracts.columns import EventColumns, TimeLimits, refuse
from rankstream.errors import InvalidInput
from rankstream.pb import events_pb2 as pb

_POLL_RECORDS: Final = 10_000
_POLL_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, eq=False)
class Logged:
    """Events and where they stand in the log: int64 `partition` and `offset`, shape (n,).

    `version` is that of the table when it was read.
    """

    columns: EventColumns
    partition: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    version: int

    def ends(self) -> dict[int, int]:
        """Partition -> offset after its last event: `before` of a `read_log` that finds the same.

        Rows are only ever added, and at greater offsets.
        """
        partitions = np.unique(self.partition).tolist()
        return {p: int(self.offset[self.partition == p].max()) + 1 for p in partitions}


def read_log(
    lake: Path, *, until_ms: int, limits: TimeLimits, before: Mapping[int, int] | None = None
) -> Logged:
    """Events of the lake with event time up to `until_ms`, without those that break the contract.

    Args:
        before: partition -> offset: of these partitions what is before, of others nothing.

    Raises: InvalidInput: there is no table, or it holds no such event.
    """
    path = lake / topics.EVENTS.name
    columns = [
        "partition", "offset", "row", "append_time_ms", "event_id", "kind", "event_time_ms",
        "position", "value", "attributes", *TEXT_COLUMNS,
    ]  # fmt: skip
    try:
        delta = DeltaTable(str(path))
        table = delta.to_pyarrow_table(columns=columns, filters=_wanted(until_ms, before))
    except DeltaError as error:
        raise _empty(path, f"cannot be read: {str(error)[:200]}") from None
    if not table.num_rows:
        raise _empty(path, f"has no event until {until_ms} ms")
    # The order of the log decides ties of event time.
    table = table.sort_by([(name, "ascending") for name in ("partition", "offset", "row")])
    return _allowed(table, until_ms, limits, delta.version())


def _wanted(until_ms: int, before: Mapping[int, int] | None) -> ds.Expression:
    wanted = ds.field("event_time_ms") <= until_ms
    return wanted if before is None else wanted & of_offsets(before)


def of_offsets(before: Mapping[int, int]) -> ds.Expression:
    """Rows of the log before an offset of their partition; of partitions without one none."""
    within = ds.scalar(False)
    for partition, offset in before.items():
        within |= (ds.field("partition") == partition) & (ds.field("offset") < offset)
    return within


def _allowed(table: pa.Table, until_ms: int, limits: TimeLimits, version: int) -> Logged:
    events = _columns(table)
    ahead_ms = events.event_time_ms - table["append_time_ms"].to_numpy()
    good = (ahead_ms <= limits.ahead_ms_max) & (-ahead_ms <= limits.behind_ms_max)
    anyone = TimeLimits(ahead_ms_max=0, behind_ms_max=1 << 62)
    for refusal in refuse(events, append_time_ms=until_ms, limits=anyone):
        good[refusal.row] = False
    if not good.all():
        table = table.filter(pa.array(good))
        events = _columns(table)
    return Logged(
        events,
        _numbers(table, "partition", np.int64),
        _numbers(table, "offset", np.int64),
        version,
    )


def _columns(table: pa.Table) -> EventColumns:
    texts = [table[name].combine_chunks() for name in TEXT_COLUMNS]
    attributes = _attributes(table["attributes"])
    names = sorted({name for _, found in attributes for name in found})
    words = sorted({v for _, found in attributes for v in found.values() if isinstance(v, str)})
    pool = pa.concat_arrays([pa.array(["", *names, *words], pa.string()), *texts])
    strings = pc.unique(pool)
    place: dict[str, int] = {text: k for k, text in enumerate(strings.to_pylist())}
    codes = {
        name: pc.index_in(text, strings).to_numpy(zero_copy_only=False).astype(np.uint32)
        for name, text in zip(TEXT_COLUMNS, texts, strict=True)
    }
    entries = [(row, name, value) for row, found in attributes for name, value in found.items()]
    return EventColumns(
        strings=tuple(place),
        kind=_numbers(table, "kind", np.uint8),
        event_id=b"".join(table["event_id"].to_pylist()),
        event_time_ms=_numbers(table, "event_time_ms", np.int64),
        position=_numbers(table, "position", np.int32),
        value=_numbers(table, "value", np.float64),
        attribute_row=np.array([row for row, _, _ in entries], np.uint32),
        attribute_name=np.array([place[name] for _, name, _ in entries], np.uint32),
        attribute_text=np.array(
            [place[v] if isinstance(v, str) else 0 for _, _, v in entries], np.uint32
        ),
        attribute_number=np.array(
            [0.0 if isinstance(v, str) else v for _, _, v in entries], np.float64
        ),
        **codes,
    )


def _numbers(table: pa.Table, name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    column: npt.NDArray[Any] = table[name].to_numpy().astype(dtype)
    return column


def _attributes(column: pa.ChunkedArray) -> list[tuple[int, dict[str, str | float]]]:
    rows = np.flatnonzero(pc.not_equal(column, "").to_numpy())
    return [(row, json.loads(column[row].as_py())) for row in rows.tolist()]


def _empty(path: Path, problem: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_input: lake table {path} {problem}. Nothing was trained."
        " Start the features service, send events, wait for its flush."
    )


async def read_items(bootstrap: str) -> dict[str, ItemFacts]:
    """item_id -> what the newest update in topic `items` says.

    Raises: DependencyUnavailable: Kafka does not answer.
    """
    reader = LogReader(bootstrap, [topics.ITEMS.name], client_id="pipelines")
    newest: dict[str, int] = {}
    facts: dict[str, ItemFacts] = {}
    try:
        while not reader.caught_up:
            for record in await reader.poll(_POLL_RECORDS, _POLL_TIMEOUT_S):
                if record.value is None:
                    continue
                item = pb.Item.FromString(record.value)
                if item.updated_ms >= newest.get(item.item_id, 0):
                    newest[item.item_id] = item.updated_ms
                    facts[item.item_id] = ItemFacts(
                        item.category,
                        dict(item.attributes),
                        item.title,
                        item.description,
                        tuple(item.tags),
                    )
    finally:
        await reader.close()
    return facts
