"""Feature vectors of candidates: rows from the store, or their defaults when it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from rankstream.errors import DependencyUnavailable, SpecMismatch
from rankstream.features import spec
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ROW,
    ITEM_ROW,
    USER_ROW,
    Rows,
    empty_rows,
)
from rankstream.features.snapshot import snapshot
from rankstream.pb.events_pb2 import Stamp
from rankstream.ports import FeatureStore
from services.ranker.requests import Context

TIMEOUT: Final = "features_timeout"
MISMATCH: Final = "features_mismatch"
UNKNOWN_USER: Final = "unknown_user"

T = TypeVar("T")


@dataclass
class Degraded:
    """Names of the fallbacks that one answer took, in order, each once."""

    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Note a fallback."""
        if reason not in self.reasons:
            self.reasons.append(reason)


@dataclass(frozen=True)
class Enriched:
    """n candidates with what is known of them.

    rows: ITEM_ROW, shape (n,). features: float32, shape (n, spec.WIDTH).
    categories, category_rows: name and CATEGORY_ROW, shape (m,), of each category once;
    category_of: shape (n,), where each item's is. context: CONTEXT_ROW, shape (1, 2).
    """

    item_ids: list[str]
    rows: Rows
    categories: list[str]
    category_rows: Rows
    category_of: npt.NDArray[np.intp]
    context: Rows
    features: npt.NDArray[np.float32]


class Enrichment:
    """Reads rows with a deadline; never fails, at worst everything has its default."""

    def __init__(self, store: FeatureStore, *, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s

    async def user(self, user_id: str, degraded: Degraded) -> Rows:
        """USER_ROW, shape (1,)."""
        row = await self._read(lambda: self._store.user(user_id), degraded)
        if row is None:
            return empty_rows(1, USER_ROW)
        if not is_known(row)[0]:
            degraded.add(UNKNOWN_USER)
        return row

    async def user_and_items(
        self, user_id: str, item_ids: list[str], degraded: Degraded
    ) -> tuple[Rows, Rows]:
        """USER_ROW, shape (1,), and ITEM_ROW, shape (n,)."""
        both = await self._read(lambda: self._store.user_and_items(user_id, item_ids), degraded)
        if both is None:
            return empty_rows(1, USER_ROW), empty_rows(len(item_ids), ITEM_ROW)
        if not is_known(both[0])[0]:
            degraded.add(UNKNOWN_USER)
        return both

    async def items(self, item_ids: list[str], degraded: Degraded) -> Rows:
        """ITEM_ROW, shape (n,)."""
        rows = await self._read(lambda: self._store.items(item_ids), degraded)
        return empty_rows(len(item_ids), ITEM_ROW) if rows is None else rows

    async def enrich(
        self,
        user: Rows,
        item_ids: list[str],
        rows: Rows,
        context: Context,
        as_of_ms: int,
        degraded: Degraded,
    ) -> Enriched:
        """The candidates with what is known around them, and their feature vectors."""
        names, which = np.unique(rows["category"], return_inverse=True)
        texts = [name.decode(errors="replace") for name in names.tolist()]

        async def both() -> tuple[Rows, Rows]:
            # One after the other: a context is mostly none, or was read for another request.
            categories = await self._store.categories(texts)
            return categories, await self._store.context(context.query, context.location)

        read = await self._read(both, degraded)
        categories, around = read or (
            empty_rows(len(names), CATEGORY_ROW),
            empty_rows(2, CONTEXT_ROW)[None],
        )
        as_of = np.array([as_of_ms], np.int64)
        features = (
            snapshot(user, rows, categories, around, as_of, category_of=which)
            if item_ids
            else np.empty((0, spec.WIDTH), np.float32)
        )
        return Enriched(item_ids, rows, texts, categories, which, around, features)

    async def _read(self, read: Callable[[], Awaitable[T]], degraded: Degraded) -> T | None:
        if TIMEOUT in degraded.reasons:
            return None  # one answer waits for one deadline, not for one per read
        try:
            async with asyncio.timeout(self._timeout_s):
                return await read()
        except (TimeoutError, DependencyUnavailable):
            degraded.add(TIMEOUT)
        except SpecMismatch as error:
            degraded.add(MISMATCH)
            structlog.get_logger().error("feature_rows_refused", reason=str(error))
        return None


def is_known(rows: Rows) -> npt.NDArray[np.bool_]:
    """Whether the log has anything on each entity, shape (n,)."""
    known: npt.NDArray[np.bool_] = (rows["offset"] >= 0) | (rows["items_offset"] >= 0)
    return known


def stamps(rows: Rows) -> list[Stamp]:
    """Up to where the log was folded into each row."""
    columns = (rows[name].tolist() for name in ("partition", "offset", "items_offset"))
    return [
        Stamp(partition=partition, offset=offset, items_offset=items_offset)
        for partition, offset, items_offset in zip(*columns, strict=True)
    ]
