"""Training rows with a known answer, for tests of what is made of them."""

from __future__ import annotations

import numpy as np

from pipelines.features.replay import TrainingRows
from rankstream.contracts.ids import id64
from rankstream.features import spec
from rankstream.features.rows import RECENT

START_MS = 1_700_000_000_000
USERS, ITEMS, GROUPS = 40, 30, 3


def some_rows(n: int = 3_000, *, seed: int = 1) -> TrainingRows:
    """Users and items of three groups: equal groups and a high feature 0 make a click,
    a high feature 1 a purchase."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, USERS, n), rng.integers(0, ITEMS, n)
    # By column and apart: neither a column nor the rest depends on how many features there are.
    columns = np.random.default_rng([seed, 3]).normal(size=(spec.WIDTH, n))
    features = np.ascontiguousarray(columns.T, np.float32)
    features[:, 7] = 3.0  # a constant
    logit = 2.0 * features[:, 0] + np.where(user % GROUPS == item % GROUPS, 1.0, -2.0)
    clicked = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    # Drawn apart, so that the rest is what it was before there were purchases.
    buys = 1 / (1 + np.exp(2.0 - 1.5 * features[:, 1]))
    purchased = (np.random.default_rng([seed, 1]).random(n) < buys).astype(np.int8)
    recent = np.zeros((n, RECENT), np.uint64)
    last: dict[int, list[int]] = {}
    for k in range(n):
        held = last.setdefault(int(user[k]), [])
        recent[k, : len(held)] = held
        if clicked[k]:
            held.insert(0, id64(f"i{item[k]}"))
            del held[8:]
    return TrainingRows(
        features=features,
        clicked=clicked,
        time_ms=START_MS + np.arange(n, dtype=np.int64) * 1000,
        user=user,
        item=item,
        users=tuple(f"u{k}" for k in range(USERS)),
        items=tuple(f"i{k}" for k in range(ITEMS)),
        recent=recent,
        purchased=purchased,
        purchases_come=np.ones(n, np.float32),
        position=rng.integers(0, 10, n),
    )
