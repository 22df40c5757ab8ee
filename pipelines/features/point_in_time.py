"""Counter rows strictly before many moments at once, with the stream's own counters.

Rows are additive, so the moments of different entities do not wait for each other: wave k folds,
for every entity, what happened between its moments k - 1 and k. An entity with very many moments
is cut into spans that start from its state so far and then run side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.features.counters import CounterTable
from rankstream.features.rows import Rows, empty_rows

Ints = npt.NDArray[np.int64]

SPAN: Final = 256
_TIME_BITS: Final = 42


def ranks(query: Ints, query_ms: Ints, event: Ints, event_ms: Ints) -> tuple[Ints, Ints]:
    """Where each event falls between the moments that its entity is asked about.

    Args:
        query: shape (n,), entity asked about, 0 and up; query_ms: when.
        event: shape (m,), entity that an event changes; event_ms: when.

    Returns: the rank of each query among its entity's distinct moments, from 1; and for each event
        how many of them are at or before it. A query of rank r sees the events below r: those
        strictly before it.
    """
    times = np.concatenate([query_ms, event_ms])
    start_ms = int(times.min())
    assert int(times.max()) - start_ms < 1 << _TIME_BITS
    assert int(query.max()) < 1 << (63 - _TIME_BITS)
    moments, place = np.unique((query << _TIME_BITS) | (query_ms - start_ms), return_inverse=True)
    rank = place - np.searchsorted(moments, query << _TIME_BITS) + 1
    before = np.searchsorted(moments, (event << _TIME_BITS) | (event_ms - start_ms), side="right")
    return rank, before - np.searchsorted(moments, event << _TIME_BITS)


@dataclass(frozen=True, eq=False)
class Added:
    """m additions: int64 `entity` and `time_ms`, shape (m,), `amounts`, shape (m, 7): TOTALS."""

    entity: Ints
    time_ms: Ints
    amounts: Ints

    def take(self, rows: npt.NDArray[np.intp]) -> Added:
        """Some of them."""
        return Added(self.entity[rows], self.time_ms[rows], self.amounts[rows])


def counters_before(dtype: np.dtype[np.void], query: Ints, query_ms: Ints, added: Added) -> Rows:
    """The row of each query's entity as it was strictly before, shape (n,), dtype `dtype`."""
    out = empty_rows(len(query), dtype)
    if not len(query):
        return out
    rank, segment = ranks(query, query_ms, added.entity, added.time_ms)
    entities = int(max(query.max(), added.entity.max(initial=0))) + 1
    spans = (int(rank.max()) - 1) // SPAN + 1
    virtual = np.full((entities, spans), -1)
    virtual[query, (rank - 1) // SPAN] = 0
    asked = np.argwhere(virtual == 0)
    virtual[asked[:, 0], asked[:, 1]] = np.arange(len(asked))
    table = _table(len(asked))
    table.put(np.arange(len(asked)), _starts(dtype, asked, segment, added))
    owner = virtual[query, (rank - 1) // SPAN]
    target = virtual[added.entity, np.maximum(segment - 1, 0) // SPAN]
    inside = np.flatnonzero((segment > 0) & (target >= 0))
    waves = _grouped((rank - 1) % SPAN, np.arange(len(query)))
    changes = _grouped((segment[inside] - 1) % SPAN, inside)
    for wave, change in zip(waves, changes, strict=True):
        out[wave] = _filled(table, owner[wave], dtype)
        table.add(target[change], added.time_ms[change], added.amounts[change])
    return out


def _starts(dtype: np.dtype[np.void], asked: Ints, segment: Ints, added: Added) -> Rows:
    """State of each (entity, span) in `asked` when the span begins."""
    table = _table(int(max(asked[:, 0].max(), added.entity.max(initial=0))) + 1)
    starts = empty_rows(len(asked), dtype)
    span_of = np.maximum(segment + SPAN - 1, 0) // SPAN
    for span in range(int(asked[:, 1].max()) + 1):
        now = added.take(np.flatnonzero(span_of == span))
        table.add(now.entity, now.time_ms, now.amounts)
        mine = np.flatnonzero(asked[:, 1] == span)
        starts[mine] = _filled(table, asked[mine, 0], dtype)
    return starts


def _table(rows: int) -> CounterTable:
    """Counters of nothing: entity k has row k."""
    table = CounterTable()
    for number in range(rows):
        table.row(str(number))
    return table


def _filled(table: CounterTable, row: Ints, dtype: np.dtype[np.void]) -> Rows:
    rows = empty_rows(len(row), dtype)
    table.fill(rows, row)
    return rows


def _grouped(group: Ints, value: Ints) -> list[Ints]:
    """`value` by group, in order, for groups 0..SPAN - 1."""
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(1, SPAN))
    return np.split(value[order], ends)
