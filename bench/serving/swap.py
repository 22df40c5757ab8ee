"""New models and new indexes under half of the load that the ranker can take.

Set up as for `overload`. Every EVERY_S another model is published as champion, halfway between
another index. Requests that fail, refused ones among them, are counted; `p99_ratio` is the p99 of
the worst second that follows a publication by at least a second, over the p99 without any: a step
may last for that long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import uvloop

from bench.figures import Figure, figure
from bench.serving import rankers
from bench.serving.load import Calls, open_loop
from bench.serving.overload import ITEMS, opened_shop, saturation, started_ranker
from bench.serving.processes import Service
from bench.serving.recommend import requests_of, write_index
from bench.serving.shop import SEED, Shop, publish
from bench.serving.vectors import draw_items
from bench.stream.servers import Servers, started
from rankstream.adapters.artifacts import Artifact

Say = Callable[[str], None]

EVERY_S: Final = 6.0
QUIET_S: Final = 20.0
SWAPPED_S: Final = 60.0
REPEATS: Final = 2
WINDOW_S: Final = 1.0
SETTLED_S: Final = 1.0


def swap(say: Say) -> list[Figure]:
    """Failed requests and the step in latency while models and indexes are swapped."""
    with started() as servers:
        shop = opened_shop(servers, say)
        ranker = started_ranker(servers, shop)
        artefacts = other_artefacts(servers, shop)
        half = saturation(ranker, shop) / 2
        found = [_repeated(servers, ranker, shop, artefacts, half, say) for _ in range(REPEATS)]
        ranker.stop()
    failed, slower = zip(*found, strict=True)
    return [
        figure("serving.swap.failed", failed, "requests"),
        figure("serving.swap.p99_ratio", slower, "ratio"),
    ]


def other_artefacts(servers: Servers, shop: Shop) -> dict[str, list[Artifact]]:
    """By role, the artefact in force and another one of the same items."""
    features = rankers.training_rows(shop.rows, time.time_ns() // 1_000_000, SEED + 1)
    booster = rankers.fit_trees(features, SEED + 1)
    graph = rankers.graph_of(booster, features.shape[1])
    folder = servers.folder / "artifacts"
    model = rankers.write_ranker(folder, "xgboost", graph, features, SEED + 1)
    drawn = draw_items(ITEMS, seed=SEED)
    indexes = [write_index(servers, shop, drawn, seed=SEED + number) for number in (1, 2)]
    return {"ranker": [model, shop.artifact], "retrieval": indexes}


def _repeated(
    servers: Servers,
    ranker: Service,
    shop: Shop,
    artefacts: dict[str, list[Artifact]],
    per_s: float,
    say: Say,
) -> tuple[float, float]:
    quiet, _ = _asked(servers, ranker, shop, {}, per_s, QUIET_S)
    calls, published_s = _asked(servers, ranker, shop, artefacts, per_s, SWAPPED_S)
    before_ms = float(np.quantile(quiet.latency_s, 0.99)) * 1_000
    at_s, latency_ms = np.array(calls.at_s), np.array(calls.latency_s) * 1_000
    worst_ms = worst_window_ms(at_s, latency_ms, published_s)
    p99_ms = float(np.quantile(latency_ms, 0.99))
    say(
        f"swap, {per_s:.0f}/s: {len(published_s)} publications, {dict(calls.failed) or 'none'}"
        f" failed, degraded: {dict(calls.degraded) or 'none'}; p99 {before_ms:.0f} ms without,"
        f" {p99_ms:.0f} with, {worst_ms:.0f} in the worst second after a second"
    )
    return float(sum(calls.failed.values())), worst_ms / before_ms


def worst_window_ms(
    at_s: npt.NDArray[np.float64], latency_ms: npt.NDArray[np.float64], published_s: Sequence[float]
) -> float:
    """The largest p99 of a WINDOW_S, SETTLED_S after each publication.

    Args:
        at_s, latency_ms: of each answer, shape (n,).
    """
    starts = np.array(published_s) + SETTLED_S
    windows = (latency_ms[(at_s >= one) & (at_s < one + WINDOW_S)] for one in starts)
    return max(float(np.quantile(window, 0.99)) for window in windows if len(window))


def _asked(
    servers: Servers,
    ranker: Service,
    shop: Shop,
    artefacts: dict[str, list[Artifact]],
    per_s: float,
    seconds: float,
) -> tuple[Calls, list[float]]:
    """Calls at a rate, and when something was published meanwhile, from the start."""

    async def both() -> tuple[Calls, list[float]]:
        published_s: list[float] = []
        swaps = asyncio.create_task(swapping(servers, artefacts, EVERY_S, published_s))
        calls = await open_loop(
            ranker.grpc, "Recommend", requests_of(shop), per_s=per_s, seconds=seconds
        )
        swaps.cancel()
        return calls, published_s

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(both())


async def swapping(
    servers: Servers,
    artefacts: dict[str, list[Artifact]],
    every_s: float,
    published_s: list[float],
) -> None:
    """Publish them by turns until cancelled, each role once in `every_s`; note when."""
    began_s, number = time.perf_counter(), 0
    while artefacts:
        for role, kept in artefacts.items():
            await asyncio.sleep(every_s / len(artefacts))
            published_s.append(time.perf_counter() - began_s)
            await publish(servers, role, kept[number % len(kept)])
        number += 1
