"""The FeatureStore port on Redis: what the ranker reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from rankstream.adapters.redis_link import RedisLink
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    RowReader,
)
from rankstream.errors import DependencyUnavailable
from rankstream.features.rows import CONTEXT_ROW, Rows, empty_rows


class RedisFeatureStore:
    """Reads packed rows over one pipelined connection; calls of many tasks share round trips."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._link = RedisLink(url, timeout_s=timeout_s)
        self._users = RowReader(USER_STATE)
        self._items = RowReader(ITEM_STATE)
        self._categories = RowReader(CATEGORY_STATE)
        self._context = (RowReader(QUERY_STATE), RowReader(LOCATION_STATE))

    async def user(self, user_id: str) -> Rows:
        """The user's row, shape (1,)."""
        return await self._read(self._users, (user_id,))

    async def items(self, item_ids: Sequence[str]) -> Rows:
        """Item rows in order of the ids, shape (n,)."""
        return await self._read(self._items, item_ids)

    async def categories(self, names: Sequence[str]) -> Rows:
        """Category rows in order of the names, shape (n,)."""
        return await self._read(self._categories, names)

    async def context(self, query: str, location: str) -> Rows:
        """The rows of query and location in one round trip, shape (1, 2)."""
        found = empty_rows(2, CONTEXT_ROW)
        named = [
            (place, reader, name)
            for place, (reader, name) in enumerate(
                zip(self._context, (query, location), strict=True)
            )
            if name
        ]
        if named:
            packed = b"".join(reader.hgets((name,)) for _, reader, name in named)
            replies = await self._values(packed, len(named))
            for (place, reader, _), reply in zip(named, replies, strict=True):
                found[place] = reader.rows((reply,))[0]
        return found[None]

    async def user_and_items(self, user_id: str, item_ids: Sequence[str]) -> tuple[Rows, Rows]:
        """The user's row and the items' rows, in one round trip."""
        packed = self._users.hgets((user_id,)) + self._items.hgets(item_ids)
        replies = await self._values(packed, 1 + len(item_ids))
        return self._users.rows(replies[:1]), self._items.rows(replies[1:])

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _read(self, reader: RowReader, entity_ids: Sequence[str]) -> Rows:
        if not entity_ids:
            return reader.rows(())
        return reader.rows(await self._values(reader.hgets(entity_ids), len(entity_ids)))

    async def _values(self, packed: bytes, count: int) -> Sequence[bytes | None]:
        replies = await self._link.request(packed, count)
        for reply in replies:
            if isinstance(reply, Exception):
                raise DependencyUnavailable(
                    f"dependency_unavailable: Redis refused a read: {reply}. Nothing was read."
                )
        return cast(Sequence[bytes | None], replies)
