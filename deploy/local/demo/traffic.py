"""Live users: they ask for slates over gRPC, look, click, sometimes buy later, and tell ingest.

Their preferences are the simulator's truth, so that what the experiment estimates is known.
A few events are sent twice and a few are broken, as from real clients.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import grpc
import httpx
import numpy as np

from deploy.local.demo.beacon import Beacon
from rankstream.contracts.ids import new_id
from rankstream.pb import ranker_pb2
from rankstream.simulation.attention import Buying, clicks, expected_ctr, purchases
from rankstream.simulation.truth import Truth

SLATE: Final = 10

Recommend: TypeAlias = Callable[[ranker_pb2.RecommendRequest], Awaitable[ranker_pb2.RankReply]]


@dataclass(frozen=True)
class Plan:
    """How much traffic, and what is odd about it."""

    experiment_id: str
    control: str
    treatment: str
    seed: int
    seconds: float = 90.0
    requests_per_s: float = 60.0
    preview_share: float = 0.2  # of requests whose slate both variants are asked for
    repeat_share: float = 0.02  # of posts sent a second time
    broken_share: float = 0.01  # of posts that carry an event of no known kind
    click_delay_s: tuple[float, float] = (0.2, 3.0)
    buying: Buying = field(default_factory=lambda: Buying(p_purchase=0.15, delay_ms_mean=4_000.0))


@dataclass
class Tally:
    """What the users did and saw."""

    sent: Counter[str] = field(default_factory=Counter)  # events by kind, repeats included
    accepted: int = 0
    rejected: int = 0
    repeated: Counter[str] = field(default_factory=Counter)  # of those, the repeats
    latency_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    preview_user: list[str] = field(default_factory=list)
    preview_control: list[float] = field(default_factory=list)
    preview_treatment: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Traffic:
    """One run of a plan against a ranker and an ingest gateway."""

    def __init__(
        self, plan: Plan, truth: Truth, *, recommend: Recommend, ingest: httpx.AsyncClient
    ) -> None:
        self.tally = Tally()
        self._plan = plan
        self._truth = truth
        self._recommend_rpc = recommend
        self._rng = np.random.default_rng(plan.seed)
        self._beacon = Beacon(
            ingest,
            np.random.default_rng([plan.seed, 1]),
            repeat_share=plan.repeat_share,
            broken_share=plan.broken_share,
        )

    async def run(self, progress: Callable[[float], None]) -> Tally:
        """Arrivals are a Poisson process that does not wait for answers; returns when all that was
        begun has ended.
        """
        posting = asyncio.create_task(self._beacon.run())
        await self._arrivals(progress)
        posting.cancel()
        await posting
        beacon, tally = self._beacon, self.tally
        tally.sent, tally.repeated = beacon.sent, beacon.repeated
        tally.accepted, tally.rejected = beacon.accepted, beacon.rejected
        return tally

    async def _arrivals(self, progress: Callable[[float], None]) -> None:
        began = time.monotonic()
        due = began
        async with asyncio.TaskGroup() as visits:
            while (now := time.monotonic()) - began < self._plan.seconds:
                progress(now - began)
                due += float(self._rng.exponential(1.0 / self._plan.requests_per_s))
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                user = self._truth.users[int(self._rng.integers(len(self._truth.users)))]
                visits.create_task(self._visit(user, due, int(self._rng.integers(1 << 62))))
            self.tally.seconds = time.monotonic() - began

    async def _visit(self, user: str, due: float, seed: int) -> None:
        """One slate: asked for, seen, clicked, perhaps bought from. `due` is when it should begin:
        waiting for our own loop counts as latency.
        """
        rng = np.random.default_rng(seed)
        try:
            reply = await self._recommend(user)
        except grpc.aio.AioRpcError as error:
            self.tally.failed[error.code().name] += 1
            return
        self.tally.latency_s.append(time.monotonic() - due)
        self.tally.degraded.update(reply.degraded)
        slate = list(reply.item_id)
        for slot in range(len(slate)):
            self._beacon.add(self._event("impression", user, reply, slot) | {"position": slot})
        clicked = clicks(self._truth, user, slate, rng)
        bought = {sale.position: sale for sale in purchases(clicked, rng, self._plan.buying)}
        later = [self._click(user, reply, slot, rng) for slot in np.flatnonzero(clicked).tolist()]
        later += [
            self._purchase(user, reply, slot, sale.delay_ms, sale.value)
            for slot, sale in bought.items()
        ]
        if rng.random() < self._plan.preview_share:
            later.append(self._preview(user))
        await asyncio.gather(*later)

    async def _recommend(self, user: str, variant: str = "") -> ranker_pb2.RankReply:
        request = ranker_pb2.RecommendRequest(user_id=user, n=SLATE)
        if variant:
            request.preview = True
            request.variant_overrides[self._plan.experiment_id] = variant
        return await self._recommend_rpc(request)

    async def _preview(self, user: str) -> None:
        """What each variant would show now, and what it is worth: truth without click noise."""
        variants = (self._plan.control, self._plan.treatment)
        try:
            slates = [list((await self._recommend(user, v)).item_id) for v in variants]
        except grpc.aio.AioRpcError as error:
            self.tally.failed[f"preview_{error.code().name}"] += 1
            return
        control, treatment = (expected_ctr(self._truth, user, slate) for slate in slates)
        self.tally.preview_user.append(user)
        self.tally.preview_control.append(control)
        self.tally.preview_treatment.append(treatment)

    def _event(
        self, kind: str, user: str, reply: ranker_pb2.RankReply, slot: int
    ) -> dict[str, Any]:
        return {
            "kind": kind,
            "event_id": new_id(),
            "event_time_ms": time.time_ns() // 1_000_000,
            "user_id": user,
            "request_id": reply.request_id,
            "item_id": reply.item_id[slot],
            "category": reply.category[slot],
        }

    async def _click(
        self, user: str, reply: ranker_pb2.RankReply, slot: int, rng: np.random.Generator
    ) -> None:
        await asyncio.sleep(float(rng.uniform(*self._plan.click_delay_s)))
        self._beacon.add(self._event("click", user, reply, slot))

    async def _purchase(
        self,
        user: str,
        reply: ranker_pb2.RankReply,
        slot: int,
        delay_ms: int,
        value: float,
    ) -> None:
        await asyncio.sleep(self._plan.click_delay_s[1] + delay_ms / 1000.0)
        sale = {"value": value, "currency": "USD"}
        self._beacon.add(self._event("purchase", user, reply, slot) | sale)
