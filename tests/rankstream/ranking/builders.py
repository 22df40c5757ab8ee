"""Candidates for the tests of policies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankstream.contracts.policy import Policy
from rankstream.ranking.decide import Choice, decide
from rankstream.ranking.facts import Facts

NOW_MS = 1_750_000_000_000
CATEGORIES = ("drama", "comedy", "news", "sport")


def some_facts(
    preference: Sequence[float],
    *,
    category: Sequence[int] | None = None,
    year: Sequence[float] | None = None,
    impressions: Sequence[int] | None = None,
    clicks: Sequence[int] | None = None,
    by_logit: bool = True,
) -> Facts:
    """Candidates i0, i1, ...; by default of one category, well known, and of no known year."""
    m = len(preference)
    logit = np.array(preference, np.float32)
    years = np.full(m, np.nan) if year is None else np.array(year)
    return Facts(
        preference=logit,
        pctr=(1 / (1 + np.exp(-logit))).astype(np.float32),
        by_logit=by_logit,
        category=np.zeros(m, np.intp) if category is None else np.array(category, np.intp),
        categories=CATEGORIES,
        attribute_names=("year",),
        attributes=years.astype(np.float32)[:, None],
        impressions=np.array([10_000] * m if impressions is None else impressions, np.int64),
        clicks=np.array([1_000] * m if clicks is None else clicks, np.int64),
        category_impressions=np.array([1_000, 1_000, 1_000, 1_000], np.int64),
        category_clicks=np.array([300, 100, 50, 10], np.int64),
        item_ids=[f"i{i}" for i in range(m)],
    )


def random_facts(m: int, seed: int) -> Facts:
    """Candidates without equal preferences, of all categories and ages, some of them cold."""
    rng = np.random.default_rng(seed)
    impressions = rng.integers(0, 100, m)
    return some_facts(
        rng.normal(size=m).tolist(),
        category=rng.integers(0, len(CATEGORIES), m).tolist(),
        year=np.where(rng.random(m) < 0.2, np.nan, rng.integers(1990, 2026, m)).tolist(),
        impressions=impressions.tolist(),
        clicks=(impressions * rng.random(m) * 0.5).astype(int).tolist(),
    )


def decided(policy: Policy, facts: Facts, n: int = 5, request_id: str = "r") -> Choice:
    return decide(policy, facts, n, NOW_MS, salt="s", request_id=request_id)


def shown(policy: Policy, facts: Facts, n: int = 5, request_id: str = "r") -> list[int]:
    """The candidates of the slots."""
    chosen: list[int] = decided(policy, facts, n, request_id).slate.chosen.tolist()
    return chosen
