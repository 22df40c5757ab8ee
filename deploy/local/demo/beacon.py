"""What the application servers of a site do: collect events for a moment, post them together."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, Final

import httpx
import numpy as np

from rankstream.contracts.ids import new_id

FLUSH_S: Final = 0.05
POST_TRIES: Final = 8


class Beacon:
    """Posts what `add` was given, every 50 ms; now and then twice, or with a broken event in it.

    Counts: `sent` by kind with repeats, `accepted` and `rejected` as ingest answered, `repeated`
    by kind: what was posted a second time.
    """

    def __init__(
        self,
        ingest: httpx.AsyncClient,
        rng: np.random.Generator,
        *,
        repeat_share: float,
        broken_share: float,
    ) -> None:
        self.sent: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.accepted = 0
        self.rejected = 0
        self._ingest = ingest
        self._rng = rng
        self._repeat_share = repeat_share
        self._broken_share = broken_share
        self._waiting: list[dict[str, Any]] = []

    def add(self, event: dict[str, Any]) -> None:
        """Post the event with the next flush."""
        self._waiting.append(event)

    async def run(self) -> None:
        """Flush until cancelled, then once more."""
        async with asyncio.TaskGroup() as posts:
            try:
                while True:
                    await asyncio.sleep(FLUSH_S)
                    posts.create_task(self._flush())
            except asyncio.CancelledError:
                # The group waits for posts under way; this one takes what came last.
                posts.create_task(self._flush())

    async def _flush(self) -> None:
        body, self._waiting = self._waiting, []
        if not body:
            return
        if self._rng.random() < self._broken_share:
            body.append({**body[0], "event_id": new_id(), "kind": "tap"})
        kinds = Counter(event["kind"] for event in body)
        await self._post(body, kinds)
        if self._rng.random() < self._repeat_share:
            self.repeated += kinds
            await self._post(body, kinds)

    async def _post(self, body: list[dict[str, Any]], kinds: Counter[str]) -> None:
        """Post until ingest has answered for every event; its 503 says when to come back."""
        for _ in range(POST_TRIES):
            answer = await self._ingest.post(
                "/v1/events:batch",
                content=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
        if answer.status_code >= 500:
            answer.raise_for_status()
        found = answer.json()
        self.sent += kinds
        self.accepted += int(found["accepted"])
        self.rejected += len(found["rejected"])
