"""Point-in-time join in DuckDB: to each row of a table, the newest row of its keys at its time.

Which row of the history that is, is found over keys and times alone; what the row holds is fetched
by its place in the files afterwards. So the join's memory does not grow with the width of the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from rankstream.errors import InvalidInput

MEMORY: Final = "2GB"
THREADS: Final = 2
_UTC: Final = pa.timestamp("us", tz="UTC")
_ROW: Final = "__row"


@dataclass(frozen=True)
class History:
    """Rows of some entity over time, in Parquet files.

    `keys` maps columns of the files to columns of the table that is joined, `features` maps columns
    of the files to their names in the result. A row is found from its `time` on, for `ttl` (zero:
    for ever), ends included; of rows with equal keys and time, the one with the greatest `created`.
    Without `created` they must not occur.
    """

    path: str  # a file or a glob
    keys: Mapping[str, str]
    time: str
    features: Mapping[str, str]
    ttl: timedelta = timedelta(0)
    created: str = ""


def asof_join(
    entities: pa.Table,
    time: str,
    histories: Sequence[History],
    *,
    memory: str = MEMORY,
    threads: int = THREADS,
) -> pa.Table:
    """The table with the features of each history beside it, null where none is found.

    Args:
        entities: n rows; they keep their order. Times without a zone are UTC.
        time: its column that says as of when.
        memory: DuckDB's limit; past it, it writes to a temporary folder.

    Raises: InvalidInput: a history or a column is missing, or a time is null.
    """
    place = entities.schema.get_field_index(time)
    if place < 0 or entities[time].null_count:
        raise InvalidInput(
            f"invalid_input: the rows to join have no column {time!r}, or nulls in it."
            " Nothing was joined. Give every row the time that it asks about."
        )
    stamps = _utc(entities[time])
    asked = entities.set_column(place, time, stamps)
    row = pa.array(np.arange(len(asked)))
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": folder,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for history in histories:
                keys = {
                    ours: asked[ours]
                    for ours in history.keys.values()
                    if ours in asked.schema.names
                }
                connection.register("asked", pa.table({**keys, _ROW: row, "__time": stamps}))
                try:
                    found = connection.sql(_query(history)).to_arrow_table()
                except duckdb.Error as error:
                    raise InvalidInput(
                        f"invalid_input: history {history.path}: {str(error)[:300]}."
                        " Nothing was joined. Run `python -m pipelines.features backfill`."
                    ) from None
                for name in history.features.values():
                    asked = asked.append_column(name, found[name])
    return asked


def _utc(times: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = times.type
    if pa.types.is_timestamp(kind) and kind.tz is None:
        times = times.cast(pa.timestamp(kind.unit, tz="UTC"))
    return times.cast(_UTC, safe=False)


def _query(history: History) -> str:
    """SQL over the view `asked`: keys, __row and __time -> features, in order of __row."""
    source = f"read_parquet({_text(history.path)})"
    keys = [(_name(theirs), _name(ours)) for theirs, ours in history.keys.items()]
    narrow = ", ".join([*(theirs for theirs, _ in keys), f"{_name(history.time)} AS at"])
    newest = ""
    if history.created:
        parts = ", ".join([*(theirs for theirs, _ in keys), _name(history.time)])
        order = f"ORDER BY {_name(history.created)} DESC"
        newest = f" QUALIFY row_number() OVER (PARTITION BY {parts} {order}) = 1"
    match = " AND ".join([*(f"a.{ours} = h.{theirs}" for theirs, ours in keys), "a.__time >= h.at"])
    place = "h.place"
    if history.ttl:
        ttl_us = history.ttl // timedelta(microseconds=1)
        place = f"CASE WHEN epoch_us(a.__time) - epoch_us(h.at) <= {ttl_us} THEN h.place END"
    features = ", ".join(
        f"s.{_name(theirs)} AS {_name(ours)}" for theirs, ours in history.features.items()
    )
    return f"""
        WITH h AS (SELECT {narrow}, file_index AS file, file_row_number AS place
                   FROM {source}{newest}),
        f AS (SELECT a.{_ROW}, h.file, {place} AS place
              FROM asked a ASOF LEFT JOIN h ON {match})
        SELECT {features}
        FROM f LEFT JOIN (SELECT *, file_index, file_row_number FROM {source}) s
          ON s.file_index = f.file AND s.file_row_number = f.place
        ORDER BY f.{_ROW}
    """


def _name(column: str) -> str:
    escaped = column.replace('"', '""')
    return f'"{escaped}"'


def _text(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"
