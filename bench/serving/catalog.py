"""A shop's feature rows, drawn once from a seed, and where the ranker finds them.

Items have a category, counters with Zipf-like weights and two attributes; users have a history and
tastes. Nothing here reads a clock: `now_ms` is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import redis

from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    USER_STATE,
    RowEncoder,
    View,
)
from rankstream.contracts.ids import id64
from rankstream.features.rows import (
    BUCKET_MS,
    CATEGORIES,
    CATEGORY_ROW,
    COUNTERS,
    ITEM_ROW,
    RECENT,
    SLOTS,
    USER_ROW,
    Rows,
    empty_rows,
)

CATEGORY_COUNT: Final = 50
PER_WRITE: Final = 2_000
_CTR: Final = 0.1


@dataclass(frozen=True, eq=False)
class Catalog:
    """Ids and packed rows, in one order: ITEM_ROW (m,), USER_ROW (u,), CATEGORY_ROW (c,)."""

    item_ids: list[str]
    items: Rows
    user_ids: list[str]
    users: Rows
    category_names: list[str]
    categories: Rows


def catalog(items: int, users: int, *, now_ms: int, seed: int) -> Catalog:
    """A shop as of `now_ms`: everything was seen within the last hours."""
    rng = np.random.default_rng(seed)
    names = [f"category-{k}" for k in range(CATEGORY_COUNT)]
    item_ids = [f"item-{k}" for k in range(items)]
    weight = 1.0 / (np.arange(items) + 10.0)
    item_rows = _counted(empty_rows(items, ITEM_ROW), 5_000 * weight / weight[0], now_ms, rng)
    of_item = rng.integers(0, CATEGORY_COUNT, items)
    item_rows["category"] = np.array([name.encode() for name in names])[of_item]
    item_rows["attributes"] = rng.uniform((1950, 1), (2026, 90), (items, 2)).astype(np.float32)
    categories = _counted(
        empty_rows(CATEGORY_COUNT, CATEGORY_ROW), np.full(CATEGORY_COUNT, 20_000.0), now_ms, rng
    )
    user_rows = _counted(empty_rows(users, USER_ROW), np.full(users, 30.0), now_ms, rng)
    chosen = rng.choice(items, (users, RECENT), p=weight / weight.sum())
    hashes = np.array([id64(name) for name in item_ids], np.uint64)
    category_hash = np.array([id64(name) for name in names], np.uint64)
    recent = user_rows["recent"]
    recent["item"], recent["category"] = hashes[chosen], category_hash[of_item[chosen]]
    recent["time_ms"] = now_ms - np.arange(1, RECENT + 1) * 600_000
    recent["kind"] = 1
    tastes = user_rows["tastes"]
    liked = np.argsort(rng.random((users, CATEGORY_COUNT)), axis=1)[:, :CATEGORIES]
    tastes["category"] = category_hash[liked]
    tastes["impressions"] = rng.poisson(20, liked.shape)
    tastes["clicks"] = rng.binomial(tastes["impressions"], _CTR)
    tastes["last_ms"] = now_ms - 600_000
    user_rows["attributes"] = rng.uniform((18, 0), (80, 1), (users, 2)).astype(np.float32)
    user_ids = [f"user-{k}" for k in range(users)]
    return Catalog(item_ids, item_rows, user_ids, user_rows, names, categories)


def _counted(
    rows: Rows, mean: npt.NDArray[np.float64], now_ms: int, rng: np.random.Generator
) -> Rows:
    """Counters with so many impressions in each bucket on average, shape (n,)."""
    n = len(rows)
    rows["offset"] = rows["items_offset"] = 1
    rows["head"] = now_ms // BUCKET_MS
    counts = np.zeros((n, SLOTS, len(COUNTERS)), np.int32)
    counts[:, :, 0] = rng.poisson(mean[:, None] / SLOTS, (n, SLOTS))
    counts[:, :, 1] = rng.binomial(counts[:, :, 0], rng.beta(2, 18, n)[:, None])
    rows["counts"] = counts
    rows["totals"][:, : len(COUNTERS)] = counts.sum(axis=1)
    rows["last_ms"] = now_ms - rng.integers(1_000, 3_600_000, n)
    return rows


def store(shop: Catalog, client: redis.Redis) -> None:
    """Write every row where the features service would."""
    for view, ids, rows in (
        (ITEM_STATE, shop.item_ids, shop.items),
        (USER_STATE, shop.user_ids, shop.users),
        (CATEGORY_STATE, shop.category_names, shop.categories),
    ):
        _store(view, ids, rows, client)


def withdraw(shop: Catalog, item_id: str, client: redis.Redis) -> None:
    """Mark an item's row as the features service would."""
    place = shop.item_ids.index(item_id)
    shop.items["withdrawn"][place] = 1
    _store(ITEM_STATE, [item_id], shop.items[place : place + 1], client)


def _store(view: View, ids: list[str], rows: Rows, client: redis.Redis) -> None:
    encoder = RowEncoder(view)
    connection: Any = client.connection_pool.get_connection()
    try:
        for start in range(0, len(ids), PER_WRITE):
            chunk = ids[start : start + PER_WRITE]
            packed = rows[start : start + PER_WRITE]
            connection.send_packed_command(
                [b"".join(encoder.hset(one, packed[k].tobytes()) for k, one in enumerate(chunk))]
            )
            for _ in chunk:
                connection.read_response()
    finally:
        client.connection_pool.release(connection)
