"""What a ranker talks to, faked, and rows for it to read."""

from __future__ import annotations

import asyncio
from typing import Any

from rankstream.contracts.ids import id64
from rankstream.errors import DependencyUnavailable
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ROW,
    ITEM_ROW,
    USER_ROW,
    Rows,
    empty_rows,
)
from rankstream.pb import retrieval_pb2
from rankstream.testing import FakeFeatureStore
from services.ranker.candidates import RetrievalFailed, Retrieved

NOW_MS = 1_700_000_000_000
ITEM_IDS = [f"i{n}" for n in range(40)]


def item_row(impressions: int, category: str = "drama", *, withdrawn: bool = False) -> Rows:
    row = empty_rows(1, ITEM_ROW)
    row["totals"][0, 0] = impressions
    row["category"] = category.encode()
    row["withdrawn"] = withdrawn
    row["partition"], row["offset"], row["items_offset"] = 2, 10 + impressions, 5
    return row


def user_row(recent: list[str]) -> Rows:
    row = empty_rows(1, USER_ROW)
    row["partition"], row["offset"] = 1, 77
    row["recent"]["item"][0, : len(recent)] = [id64(item) for item in recent]
    row["recent"]["time_ms"][0, : len(recent)] = NOW_MS - 1_000
    return row


def category_row() -> Rows:
    row = empty_rows(1, CATEGORY_ROW)
    row["partition"], row["offset"] = 3, 99
    return row


def context_row(impressions: int) -> Rows:
    row = empty_rows(1, CONTEXT_ROW)
    row["totals"][0, 0] = impressions
    row["partition"], row["offset"] = 4, 100 + impressions
    return row


# Every item is the towers', every other one the lists' as well.
NAMED_BY = {item: 1 + 2 * (place % 2) for place, item in enumerate(ITEM_IDS)}


class FakeRetrieval:
    """Gives ITEM_IDS without the excluded ones, or fails when told to."""

    def __init__(self) -> None:
        self.fails: RetrievalFailed | None = None
        self.asked: list[retrieval_pb2.RetrieveRequest] = []
        self.gate: asyncio.Event | None = None

    async def retrieve(self, request: retrieval_pb2.RetrieveRequest) -> Retrieved:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        out = {*request.exclude_items, *map(id64, request.exclude_item_ids)}
        kept = [item for item in ITEM_IDS if id64(item) not in out]
        found = kept[: request.k]
        named_by = [NAMED_BY[item] for item in found]
        return Retrieved(found, "index-1", ["towers", "company"], named_by)


class FakeLog:
    """Keeps what is sent; acks unless told to hold or to fail."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, bytes]] = []
        self.gate: asyncio.Event | None = None
        self.fails = False

    async def send(self, topic: str, value: bytes, *, key: bytes) -> tuple[int, int]:
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise DependencyUnavailable("dependency_unavailable: no ack")
        self.records.append((topic, key, value))
        return 0, len(self.records) - 1


class FakeKept:
    """Answers in a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.fails = False

    async def put(self, request_id: str, slate: bytes) -> None:
        if self.fails:
            raise DependencyUnavailable("dependency_unavailable: no store")
        self.kept[request_id] = slate

    async def get(self, request_id: str) -> bytes | None:
        if self.fails:
            raise DependencyUnavailable("dependency_unavailable: no store")
        return self.kept.get(request_id)


class SlowStore(FakeFeatureStore):
    """Answers never while `stuck`."""

    stuck = False
    waits = 0

    async def _wait(self) -> None:
        if self.stuck:
            self.waits += 1
            await asyncio.Event().wait()

    async def user(self, user_id: str) -> Rows:
        await self._wait()
        return await super().user(user_id)

    async def items(self, item_ids: Any) -> Rows:
        await self._wait()
        return await super().items(item_ids)

    async def categories(self, names: Any) -> Rows:
        await self._wait()
        return await super().categories(names)

    async def user_and_items(self, user_id: str, item_ids: Any) -> tuple[Rows, Rows]:
        await self._wait()
        return await super().user_and_items(user_id, item_ids)
