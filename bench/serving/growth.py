"""How the cost of `Recommend` grows: what `capacity` reckons with.

CPU of a request over candidates (100 to 2,000), features that the trees look at (10 to all), items
of the index, and replicas of the ranker on one machine; memory over items, kept rows aside; and
what a further request costs Redis and Kafka. All with the index in the ranker's process.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import psutil

from bench.figures import Figure
from bench.serving import rankers
from bench.serving.load import open_loop
from bench.serving.processes import Service, start
from bench.serving.recommend import EMBEDDED, asked, indexed, measured, requests_of, settings_of
from bench.serving.retrieval import measured as index_figures
from bench.serving.shop import SEED, Shop, serve
from bench.stream.servers import Servers, started
from rankstream.features import spec

Say = Callable[[str], None]
Doubles = npt.NDArray[np.float64]

ITEMS: Final = (10_000, 100_000)  # of a shop; the last is that of all other measurements
CANDIDATES: Final = (100, 500, 1_000, 2_000)
FEATURES: Final = (10, 40, spec.WIDTH)
# Indexes; the exponent is of those with cells. Ten million are measured by `retrieval_10m`.
INDEXES: Final = {"10k": 10_000, "100k": 100_000, "300k": 300_000, "1m": 1_000_000}
REPLICAS: Final = (1, 2)
PER_S: Final = 100.0  # of each replica
PACED_S: Final = 15.0
LOOKS: Final = 5
WARM_UP: Final = 600
OTHERS: Final = ("redis", "kafka")


def growth(say: Say) -> list[Figure]:
    """serving.growth.*: the measured points, the coefficients, and how far they are off."""
    resident = []
    for items in ITEMS:
        with started() as servers:
            shop = indexed(servers, items, say)
            replicas = {count: _replicas(servers, shop, count, say) for count in REPLICAS[:1]}
            resident.append(replicas[1]["rss_gb"])
            if items == ITEMS[-1]:
                replicas |= {count: _replicas(servers, shop, count, say) for count in REPLICAS[1:]}
                costs = _costs(servers, shop, say)
    searches = {n: _search(name, n, say) for name, n in INDEXES.items()}
    found = [
        *_fit(costs, searches[ITEMS[-1]], say),
        *_of_index(searches, say),
        _one("process_gb", _line(ITEMS, resident)[0], "GB"),
        _one("item_bytes", _line(ITEMS, resident)[1] * 1e9, "bytes/item"),
    ]
    for count, part in replicas.items():
        found.append(_one(f"replicas_{count}.ranker_ms", part["ranker_ms"], "ms of CPU"))
    for name in OTHERS:
        # What they spend on nothing is the same for both paces.
        more = REPLICAS[-1] * replicas[REPLICAS[-1]][f"{name}_ms"] - replicas[1][f"{name}_ms"]
        found.append(_one(f"{name}_ms", max(more, 0.0), "ms of CPU"))
    return found


def _one(name: str, value: float, unit: str) -> Figure:
    return Figure(f"serving.growth.{name}", float(value), unit)


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    slope, base = np.polyfit(np.array(x, float), np.array(y, float), 1)
    return float(base), float(slope)


def _costs(servers: Servers, shop: Shop, say: Say) -> dict[tuple[int, int], float]:
    """CPU ms of a request by candidates and features."""
    found = {}
    for features in FEATURES:
        # The trees cannot look at what is the same in all rows.
        seen = shop.features.copy()
        seen[:, _unseen(shop.features, features)] = 0.0
        graph = rankers.graph_of(rankers.fit_trees(seen, SEED), spec.WIDTH)
        serve(servers, "xgboost", graph, shop.features)
        of = CANDIDATES if features == FEATURES[-1] else (CANDIDATES[1], CANDIDATES[-1])
        for candidates in of:
            settings = {**EMBEDDED, "CANDIDATES": str(candidates)}
            name = f"{candidates} candidates, {features} features"
            (cost,) = measured(servers, shop, settings, name, say, repeats=1, open_s=0.0)
            found[candidates, features] = cost.cpu_ms
    return found


def _unseen(features: npt.NDArray[np.float32], keep: int) -> list[int]:
    """All but `keep` columns; those that differ most between rows are kept first."""
    spread = features.std(axis=0)
    order: list[int] = np.argsort(-spread, kind="stable").tolist()
    return order[keep:]


def fitted(costs: Mapping[tuple[int, int], float]) -> tuple[Doubles, float]:
    """ms of a request, of a candidate, and of a candidate and a feature; the largest error.

    Least squares of relative errors, without negative coefficients.

    >>> ms = {(n, f): 1.0 + 0.002 * n + 0.0001 * n * f for n in (100, 500) for f in (10, 80)}
    >>> np.round(fitted(ms)[0], 6).tolist()
    [1.0, 0.002, 0.0001]
    """
    # SciPy takes a while to import.
    from scipy.optimize import nnls

    points = np.array(list(costs), float)
    spent = np.array(list(costs.values()))
    n, features = points.T
    design = np.stack([np.ones(len(n)), n, n * features], axis=1) / spent[:, None]
    coefficients, _ = nnls(design, np.ones(len(n)))
    return coefficients, float(np.abs(design @ coefficients - 1.0).max())


def _fit(costs: Mapping[tuple[int, int], float], search_ms: float, say: Say) -> Iterator[Figure]:
    (base, candidate, feature), error = fitted(costs)
    say(
        f"request: {base:.3f} ms + {candidate * 1e3:.3f} us x candidates"
        f" + {feature * 1e3:.4f} us x candidates x features, off by at most {error:.0%}"
    )
    for (n, features), spent in costs.items():
        yield _one(f"cpu_ms.{n}.{features}", spent, "ms of CPU")
    # The index has its own term.
    yield _one("base_ms", max(base - search_ms, 0.0), "ms of CPU")
    yield _one("candidate_us", candidate * 1e3, "us of CPU")
    yield _one("candidate_feature_us", feature * 1e3, "us of CPU")
    yield _one("fit_error", error, "share, worst point")


def _search(name: str, items: int, say: Say) -> float:
    found = {one.id: one.value for one in index_figures(f"growth_{name}", items)}
    spent = found[f"retrieval.growth_{name}.cpu_ms"]
    say(f"search of {items:,} items: {spent:.3f} ms")
    return spent


def _of_index(searches: Mapping[int, float], say: Say) -> Iterator[Figure]:
    cells = {n: spent for n, spent in searches.items() if n >= ITEMS[-1]}
    sizes, spent_ms = [math.log(n / 1e6) for n in cells], list(map(math.log, cells.values()))
    base, exponent = _line(sizes, spent_ms)
    guesses = {n: math.exp(base) * (n / 1e6) ** exponent for n in cells}
    error = max(abs(guesses[n] / spent - 1.0) for n, spent in cells.items())
    say(f"search: {math.exp(base):.3f} ms x (items / 1 M)^{exponent:.2f}, off by {error:.0%}")
    for n, spent in searches.items():
        yield _one(f"search_ms.{n}", spent, "ms of CPU")
    yield _one("search_1m_ms", math.exp(base), "ms of CPU")
    yield _one("search_exponent", exponent, "")
    yield _one("search_fit_error", error, "share, worst point")


def _replicas(servers: Servers, shop: Shop, count: int, say: Say) -> dict[str, float]:
    """CPU of a request at a steady pace in all rankers, in Redis and in Kafka; memory of one."""
    running = [start(servers, "ranker", settings_of(servers, shop, EMBEDDED)) for _ in range(count)]
    for one in running:
        one.await_ready()
        # The index is looked at all over, few rows are kept yet.
        asked(one, shop, LOOKS)
    rss_gb = running[0].rss_bytes() / 1e9
    for one in running:
        asked(one, shop, WARM_UP)
    before = _spent(servers, running)

    async def all_of_them() -> int:
        loops = (
            open_loop(one.grpc, "Recommend", requests_of(shop), per_s=PER_S, seconds=PACED_S)
            for one in running
        )
        return sum(len(calls.latency_s) for calls in await asyncio.gather(*loops))

    answered = asyncio.run(all_of_them())
    spent = {name: s - before[name] for name, s in _spent(servers, running).items()}
    found = {f"{name}_ms": s * 1_000 / answered for name, s in spent.items()}
    found["rss_gb"] = rss_gb
    say(f"{count} replicas: {found}")
    for one in running:
        one.stop()
    return found


def _spent(servers: Servers, running: Sequence[Service]) -> dict[str, float]:
    """CPU seconds so far."""
    out = {"ranker": sum(one.cpu_s() for one in running)}
    records = servers.processes.records()
    for name in OTHERS:
        times = psutil.Process(records[name].pid).cpu_times()
        out[name] = float(times.user + times.system)
    return out
