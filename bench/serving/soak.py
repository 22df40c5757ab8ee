"""The ranker for a long time at half load, while what it works on is swapped, killed and started.

Set up as for `overload`, but with retrieval as a service. Every minute another model and another
index are published, and an item that was just served is withdrawn; by turns Redis and retrieval are
killed (SIGKILL) and started again. Counted as failed: answers that break the contract (see
`wrong`), and requests that end otherwise than answered or refused by name with a hint when to come
again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import redis
import uvloop
from scipy.stats import theilslopes

from bench.figures import Figure
from bench.serving.catalog import withdraw
from bench.serving.load import Calls, open_loop
from bench.serving.overload import opened_shop, saturation, started_ranker
from bench.serving.processes import Service, start
from bench.serving.recommend import requests_of
from bench.serving.shop import SLATE, Shop
from bench.serving.swap import other_artefacts, swapping
from bench.stream.servers import ROOT, Servers, started
from deploy.local.processes import Processes
from deploy.local.redis import redis_answers, redis_spec
from deploy.local.report import Silent
from deploy.local.tools import provision
from rankstream.client.log import LogProducer
from rankstream.contracts.events import ItemUpdate
from rankstream.pb.ranker_pb2 import RankReply

Say = Callable[[str], None]

MINUTES: Final = 30.0
EVERY_S: Final = 60.0  # a model and an index, and one fault
DOWN_S: Final = 3.0
SAMPLE_S: Final = 1.0
WITHDRAWN_S: Final = 5.0  # from then on an item is shown no more
LIKELY: Final = 0.5  # a slot with more than this was filled by score, not by chance
# Items are ordered by logit. ONNX Runtime's sigmoid does not rise everywhere: of half a million
# ascending logits around -2, one in 180 had a probability below that before it, by 8e-6 at most.
ROUNDING: Final = 1e-5
START_TIMEOUT_S: Final = 60.0


def wrong(reply: RankReply, category_of: Mapping[str, str], withdrawn_ms: Mapping[str, int]) -> str:
    """What of the contract an answer breaks, "" if nothing.

    Args:
        category_of: of every item; withdrawn_ms: since when items are.
    """
    if len(reply.item_id) != SLATE:
        return "length"
    if len(set(reply.item_id)) < SLATE:
        return "duplicates"
    if not category_of.keys() >= set(reply.item_id):
        return "unknown items"
    if not all(0 <= value <= 1 for value in reply.score):
        return "scores"
    if not all(0 < value <= 1 for value in reply.propensity):
        return "propensities"
    by_score = [
        score
        for score, chance in zip(reply.score, reply.propensity, strict=True)
        if chance > LIKELY
    ]
    if any(after > before * (1 + ROUNDING) for before, after in itertools.pairwise(by_score)):
        return "order"
    since_ms = reply.served_time_ms - 1_000 * WITHDRAWN_S
    if any(withdrawn_ms.get(item, reply.served_time_ms) < since_ms for item in reply.item_id):
        return "withdrawn"
    if not reply.degraded and list(reply.category) != [category_of[i] for i in reply.item_id]:
        return "categories"
    return ""


def soak(say: Say, minutes: float = MINUTES) -> list[Figure]:
    """Failed requests and wrong answers, and the slope of the ranker's memory."""
    with started() as servers:
        shop = opened_shop(servers, say)
        retrieval = start(servers, "retrieval", {"ARTIFACTS": str(servers.folder / "artifacts")})
        retrieval.await_ready()
        ranker = started_ranker(servers, shop, {"RETRIEVAL_URL": retrieval.grpc})
        soaking = _Soak(servers, ranker, retrieval, shop)
        half = saturation(ranker, shop) / 2
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            calls = runner.run(soaking.run(half, 60 * minutes))
        ranker.stop()
    failed = sum(calls.failed.values()) - calls.hinted
    slope = soaking.slope_mb_per_h()
    say(
        f"soak, {minutes:g} min at {half:.0f}/s: {len(calls.latency_s)} answers, {failed} failed,"
        f" {dict(soaking.broken) or 'none'} wrong,"
        f" {dict(calls.failed) or 'none'} refused or failed,"
        f" degraded: {dict(calls.degraded) or 'none'}, {soaking.faults} faults, memory"
        f" {soaking.rss[-1] / 1e6:.0f} MB, {slope:+.0f} MB/h"
    )
    return [
        Figure("serving.soak.failed", failed + sum(soaking.broken.values()), "requests"),
        Figure("serving.soak.minutes", minutes, "min"),
        Figure("serving.soak.rss_slope", slope, "MB/h"),
    ]


class _Soak:
    def __init__(self, servers: Servers, ranker: Service, retrieval: Service, shop: Shop) -> None:
        self._servers, self._ranker, self._retrieval, self._shop = servers, ranker, retrieval, shop
        self._artefacts = other_artefacts(servers, shop)
        self._tools = provision(ROOT / ".run" / "tools", Silent())
        self._last = RankReply()
        self._withdrawn_ms: dict[str, int] = {}
        self.broken: Counter[str] = Counter()
        self.rss: list[int] = []
        self.faults = 0

    async def run(self, per_s: float, seconds: float) -> Calls:
        rows = self._shop.rows
        names = [name.decode() for name in rows.items["category"].tolist()]
        category_of = dict(zip(rows.item_ids, names, strict=True))

        def check(reply: RankReply) -> None:
            self._last = reply
            if what := wrong(reply, category_of, self._withdrawn_ms):
                self.broken[what] += 1

        beside = [
            asyncio.create_task(swapping(self._servers, self._artefacts, EVERY_S, [])),
            asyncio.create_task(self._break()),
            asyncio.create_task(self._withdraw(category_of)),
            asyncio.create_task(self._watch()),
        ]
        asked = open_loop(
            self._ranker.grpc,
            "Recommend",
            requests_of(self._shop),
            per_s=per_s,
            seconds=seconds,
            check=check,
        )
        calls = asyncio.create_task(asked)
        done, others = await asyncio.wait((calls, *beside), return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        for task in done - {calls}:
            task.result()  # what it fails with
        return calls.result()

    def slope_mb_per_h(self) -> float:
        """Of the second half of the samples (Theil-Sen)."""
        rss = np.array(self.rss[len(self.rss) // 2 :], np.float64)
        return float(theilslopes(rss).slope) / SAMPLE_S * 3_600 / 1e6

    async def _watch(self) -> None:
        while True:
            self.rss.append(self._ranker.rss_bytes())
            await asyncio.sleep(SAMPLE_S)

    async def _withdraw(self, category_of: Mapping[str, str]) -> None:
        with LogProducer(self._servers.kafka) as log:
            while True:
                await asyncio.sleep(EVERY_S)
                item, now_ms = self._last.item_id[0], time.time_ns() // 1_000_000
                update = ItemUpdate(
                    item_id=item, category=category_of[item], withdrawn=True, updated_ms=now_ms
                )
                await asyncio.to_thread(log.send, [update])
                await self._until_stored(item)
                self._withdrawn_ms[item] = time.time_ns() // 1_000_000

    async def _until_stored(self, item: str) -> None:
        while True:
            try:
                with self._servers.redis() as client:
                    return withdraw(self._shop.rows, item, client)
            except redis.ConnectionError:
                await asyncio.sleep(SAMPLE_S)  # it has been killed, and is started again

    async def _break(self) -> None:
        for name in itertools.cycle(("redis", "retrieval")):
            await asyncio.sleep(EVERY_S / 2)
            await asyncio.to_thread(self._kill, name)
            await asyncio.sleep(DOWN_S)
            await asyncio.to_thread(self._start, name)
            self.faults += 1
            await asyncio.sleep(EVERY_S / 2 - DOWN_S)

    def _kill(self, name: str) -> None:
        processes = self._servers.processes
        record = processes.records()[name]
        os.kill(record.pid, signal.SIGKILL)
        processes.stop(record)

    def _start(self, name: str) -> None:
        processes: Processes = self._servers.processes
        if name == "redis":
            port = int(self._servers.redis_url.rsplit(":", 1)[1].split("/")[0])
            folder = self._servers.folder / "redis"
            record = processes.start(redis_spec(self._tools.redis_server, folder, port))
            processes.await_ready(record, lambda: redis_answers(port), START_TIMEOUT_S)
            return
        ports = {"PORT": self._retrieval.http, "GRPC_PORT": self._retrieval.grpc}
        settings = {key: address.rsplit(":", 1)[1] for key, address in ports.items()}
        artifacts = str(self._servers.folder / "artifacts")
        start(self._servers, "retrieval", {"ARTIFACTS": artifacts, **settings}).await_ready()
