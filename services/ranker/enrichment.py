"""Feature vectors of candidates: rows from the store, or what is kept, or their defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from rankstream.errors import DependencyUnavailable, SpecMismatch
from rankstream.features.rating_table import RatingTable
from rankstream.features.rows import CONTEXT_ROW, USER_ROW, Rows, empty_rows
from rankstream.features.snapshot import partial_vectors, snapshot
from rankstream.pb.events_pb2 import Stamp
from rankstream.ranking.preranking import best, linear_scores
from services.ranker.breaker import Breaker, CircuitOpen
from services.ranker.kept_rows import Kept, KeptRows
from services.ranker.preranking import Cut, PreRanker
from services.ranker.requests import Context

TIMEOUT: Final = "features_timeout"
CIRCUIT_OPEN: Final = "features_circuit_open"  # beside TIMEOUT: nobody waited for it
MISMATCH: Final = "features_mismatch"
UNKNOWN_USER: Final = "unknown_user"

_NO_CONTEXT: Final = empty_rows(2, CONTEXT_ROW)[None]

T = TypeVar("T")


@dataclass
class Degraded:
    """Names of the fallbacks that one answer took, in order, each once."""

    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Note a fallback."""
        if reason not in self.reasons:
            self.reasons.append(reason)


@dataclass(frozen=True, eq=False)
class Enriched:
    """n candidates with what is known of them.

    features: float32, shape (n, spec.WIDTH). Item rows are where they are kept: good until the
    next await.
    categories, category_rows: name and CATEGORY_ROW, shape (m,), of each category once;
    category_of: shape (n,), where each item's is. context: CONTEXT_ROW, shape (1, 2).
    """

    item_ids: list[str]
    kept: Kept
    category_rows: Rows
    context: Rows
    features: npt.NDArray[np.float32]
    rating_table: str  # id of the one that filled its columns, "": none
    cut: Cut | None = None  # of candidates that are no more among these

    @property
    def categories(self) -> list[str]:
        return self.kept.names

    @property
    def category_of(self) -> npt.NDArray[np.intp]:
        return self.kept.category_of

    def known(self) -> npt.NDArray[np.bool_]:
        """Whether the log has anything on each candidate, shape (n,)."""
        return (self.of_items("offset") >= 0) | (self.of_items("items_offset") >= 0)

    def of_items(self, field: str) -> npt.NDArray[Any]:
        """One field of every candidate's row, shape (n, ...)."""
        return self.kept.rows[field][self.kept.item_of]

    def rows(self, chosen: npt.NDArray[np.intp]) -> Rows:
        """ITEM_ROW of some candidates."""
        return self.kept.rows[self.kept.item_of[chosen]]


class Enrichment:
    """Reads rows with a deadline; never fails, at worst everything has its default."""

    def __init__(self, store: KeptRows, *, timeout_s: float, breaker: Breaker) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._breaker = breaker

    async def user(self, user_id: str, degraded: Degraded) -> Rows:
        """USER_ROW, shape (1,)."""
        return self._user(await self._read(lambda: self._store.user(user_id), degraded), degraded)

    async def user_and_items(self, user_id: str, item_ids: list[str], degraded: Degraded) -> Rows:
        """As `user`; the items are then kept."""
        read = await self._read(lambda: self._store.user_and_items(user_id, item_ids), degraded)
        return self._user(read, degraded)

    def _user(self, row: Rows | None, degraded: Degraded) -> Rows:
        if row is None:
            return empty_rows(1, USER_ROW)
        if row["offset"][0] < 0 and row["items_offset"][0] < 0:
            degraded.add(UNKNOWN_USER)
        return row

    async def enrich(
        self,
        user: Rows,
        item_ids: list[str],
        context: Context,
        as_of_ms: int,
        degraded: Degraded,
        *,
        withdrawn: bool,
        ratings: RatingTable,
        by: PreRanker | None = None,
    ) -> Enriched:
        """The candidates with what is known around them, and their feature vectors.

        `withdrawn`: whether items that are withdrawn stay; `by`: what cuts the others. The rest of
        an answer must not await: it reads rows where they are kept.
        """
        store, around = self._store, _NO_CONTEXT
        kept = store.items(item_ids)
        late = store.due_items(item_ids, kept)
        if late or context.query or context.location:
            read = await self._read(lambda: self._items_and_context(late, context), degraded)
            around = _NO_CONTEXT if read is None else read
            kept = store.items(item_ids)
        if late := store.due_categories(kept.names):
            await self._read(lambda: store.read_categories(late), degraded)
            kept = store.items(item_ids)
        if not withdrawn and (gone := kept.rows["withdrawn"][kept.item_of] != 0).any():
            item_ids = [item_ids[i] for i in np.flatnonzero(~gone).tolist()]
            kept = store.items(item_ids)
        categories, as_of = store.categories(kept.names), np.array([as_of_ms], np.int64)
        cut = None
        if by is not None and by.keep < len(item_ids):
            places, cut = _cut(by, user, kept, categories, as_of)
            item_ids = [item_ids[i] for i in places.tolist()]
            kept = store.items(item_ids)
            categories = store.categories(kept.names)
        store.used(kept)
        features = snapshot(
            user,
            kept.rows,
            categories,
            around,
            as_of,
            item_of=kept.item_of,
            category_of=kept.category_of,
            category_hash=kept.category_hash,
        )
        ratings.fill(features, kept.item_hash[kept.item_of], user)
        table_id = ratings.table_id
        return Enriched(item_ids, kept, categories, around, features, table_id, cut)

    async def _items_and_context(self, late: list[str], context: Context) -> Rows:
        if late:
            await self._store.read_items(late)
        return await self._store.context(context.query, context.location)

    async def _read(self, read: Callable[[], Awaitable[T]], degraded: Degraded) -> T | None:
        if TIMEOUT in degraded.reasons:
            return None  # one answer waits for one deadline, not for one per read
        try:
            with self._breaker.call():
                async with asyncio.timeout(self._timeout_s):
                    return await read()
        except CircuitOpen:
            degraded.add(TIMEOUT)
            degraded.add(CIRCUIT_OPEN)
        except (TimeoutError, DependencyUnavailable):
            degraded.add(TIMEOUT)
        except SpecMismatch as error:
            degraded.add(MISMATCH)
            structlog.get_logger().error("feature_rows_refused", reason=str(error))
        return None


def _cut(
    by: PreRanker, user: Rows, kept: Kept, categories: Rows, as_of_ms: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], Cut]:
    """Places of the candidates that stay, ascending."""
    vectors = partial_vectors(
        user,
        kept.rows,
        categories,
        as_of_ms,
        item_of=kept.item_of,
        category_of=kept.category_of,
        category_hash=kept.category_hash,
    )
    scores = linear_scores(vectors, by.weights)
    places, highest = best(scores, by.keep)
    return places, Cut(by.model_id, len(scores), scores[places], highest)


def stamps(rows: Rows) -> list[Stamp]:
    """Up to where the log was folded into each row."""
    columns = (rows[name].tolist() for name in ("partition", "offset", "items_offset"))
    return [
        Stamp(partition=partition, offset=offset, items_offset=items_offset)
        for partition, offset, items_offset in zip(*columns, strict=True)
    ]
