"""Fakes and builders for tests, ours and those of people who build on rankstream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankstream.contracts.ids import partition_of
from rankstream.contracts.manifest import Utility
from rankstream.contracts.subset import Subset
from rankstream.errors import RankstreamError
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, USER_ROW, Rows, empty_rows
from rankstream.ports import Scores
from rankstream.ranking.scoring import logistic
from rankstream.retrieval import exact


class FakeFeatureStore:
    """The FeatureStore port on dicts: id -> row of shape (1,)."""

    def __init__(
        self,
        *,
        users: Mapping[str, Rows] | None = None,
        items: Mapping[str, Rows] | None = None,
        categories: Mapping[str, Rows] | None = None,
        queries: Mapping[str, Rows] | None = None,
        locations: Mapping[str, Rows] | None = None,
    ) -> None:
        self.stored_users = dict(users or {})
        self.stored_items = dict(items or {})
        self.stored_categories = dict(categories or {})
        self.stored_queries = dict(queries or {})
        self.stored_locations = dict(locations or {})

    async def user(self, user_id: str) -> Rows:
        """The user's row, shape (1,)."""
        return _stacked(self.stored_users, (user_id,), USER_ROW)

    async def items(self, item_ids: Sequence[str]) -> Rows:
        """Item rows in order of the ids, shape (n,)."""
        return _stacked(self.stored_items, item_ids, ITEM_ROW)

    async def categories(self, names: Sequence[str]) -> Rows:
        """Category rows in order of the names, shape (n,)."""
        return _stacked(self.stored_categories, names, CATEGORY_ROW)

    async def context(self, query: str, location: str) -> Rows:
        """The rows of query and location, shape (1, 2)."""
        of_query = _stacked(self.stored_queries, (query,), CONTEXT_ROW)
        return np.stack([of_query, _stacked(self.stored_locations, (location,), CONTEXT_ROW)], 1)

    async def user_and_items(self, user_id: str, item_ids: Sequence[str]) -> tuple[Rows, Rows]:
        """Both at once."""
        return await self.user(user_id), await self.items(item_ids)


def _stacked(stored: Mapping[str, Rows], ids: Sequence[str], dtype: np.dtype[np.void]) -> Rows:
    rows = empty_rows(len(ids), dtype)
    for position, entity_id in enumerate(ids):
        if entity_id in stored:
            rows[position] = stored[entity_id][0]
    rows.flags.writeable = False
    return rows


class FakeIndex:
    """The Index port on the vectors themselves, shape (m, dim)."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        self.vectors = vectors

    @property
    def size(self) -> int:
        """Rows of the table."""
        return len(self.vectors)

    @property
    def dimensions(self) -> int:
        """Length of a query."""
        return int(self.vectors.shape[1])

    def search(
        self,
        query: npt.NDArray[np.float32],
        k: int,
        excluded: npt.NDArray[np.int64],
        within: Subset | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The nearest rows that are not excluded, best first."""
        return exact(self.vectors, query, k, excluded, within)


class FakeModel:
    """The Model port as a linear function of the features, another one for purchases if given."""

    def __init__(
        self,
        weights: npt.NDArray[np.float32],
        *,
        model_id: str = "fake-model",
        means: npt.NDArray[np.float32] | None = None,
        purchase_weights: npt.NDArray[np.float32] | None = None,
        utility: Utility | None = None,
        prerank: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.prerank = prerank
        self.weights = weights
        self.purchase_weights = purchase_weights
        self.utility = utility
        self.model_id = model_id
        self.data_version = f"data of {model_id}"
        self.feature_means = np.zeros_like(weights) if means is None else means

    def score(self, features: npt.NDArray[np.float32]) -> Scores:
        """Scores of each row."""
        logit = (features.astype(np.float64) @ self.weights).astype(np.float32)
        if self.purchase_weights is None:
            return Scores(logit, logistic(logit))
        purchase = (features.astype(np.float64) @ self.purchase_weights).astype(np.float32)
        return Scores(logit, logistic(logit), logistic(purchase))


@dataclass(frozen=True)
class FakeRecord:
    """One record of a FakeEventLog."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class FakeEventLog:
    """The EventLog port in memory: every topic has `partition_count` partitions.

    Set `failure` to have each send fail with it; clear `answering` to have each send wait.
    """

    def __init__(self, *, partition_count: int = 4) -> None:
        self.partition_count = partition_count
        self.records: list[FakeRecord] = []
        self.failure: RankstreamError | None = None
        self.answering = asyncio.Event()
        self.answering.set()
        self.closed = False

    def values(self, topic: str) -> list[bytes]:
        """Values of a topic's records in order of their appends, tombstones left out."""
        return [r.value for r in self.records if r.topic == topic and r.value is not None]

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes = b"",
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[int, int]:
        """Append a record in memory."""
        await self.answering.wait()
        if self.failure is not None:
            raise self.failure
        if partition is None:
            partition = partition_of(key.decode(), self.partition_count)
        offset = sum(r.topic == topic and r.partition == partition for r in self.records)
        record = FakeRecord(topic, partition, offset, key, value, tuple(headers))
        self.records.append(record)
        return partition, offset

    async def partitions(self, topic: str) -> int:
        """The same for every topic."""
        if self.failure is not None:
            raise self.failure
        return self.partition_count

    async def ping(self, timeout_s: float) -> None:
        """Answers unless `failure` is set."""
        if self.failure is not None:
            raise self.failure

    async def flush_and_close(self) -> None:
        """Nothing is in flight here."""
        self.closed = True
