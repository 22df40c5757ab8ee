"""HTTP in front of the log: each event is accepted or refused by name, and told after the ack.

In:  POST /v1/events (one event), /v1/events:batch (JSON array), /v1/events:ndjson.
Out: topics `events`, `items`, and `events.dead` for what was refused.
Decides nothing: `intake` decides, this file moves bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from rankstream import metrics
from rankstream.adapters.apps import Routes
from rankstream.adapters.health import Health
from rankstream.adapters.http import RETRY_AFTER_S, error_body
from rankstream.adapters.keys import Scope
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.bodies import split_array, split_lines
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import DependencyUnavailable, InvalidInput
from rankstream.ports import EventLog
from services.ingest.intake import Accepted, Rejected, classify, dead_letter
from services.ingest.publisher import Outcome, Publisher
from services.ingest.settings import IngestSettings

LOG = "kafka"
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 2.0
# Events validated before other requests get a turn of the loop.
_CHUNK_EVENTS = 250

Split = Callable[[bytes], list[bytes]]


def time_limits(settings: IngestSettings) -> TimeLimits:
    """How far event time may be from the clock."""
    return TimeLimits(settings.clock_skew_ms_max, settings.event_age_ms_max)


async def watch_log(log: EventLog, publisher: Publisher, health: Health) -> None:
    """Keep readiness true to the log until cancelled."""
    while True:
        try:
            await log.ping(_PROBE_TIMEOUT_S)
            await publisher.locate()
        except DependencyUnavailable as error:
            if LOG not in health.reasons():
                structlog.get_logger().warning("log_unavailable", reason=str(error))
            health.not_ready(LOG, str(error))
        else:
            health.ready(LOG)
        await asyncio.sleep(_PROBE_EVERY_S)


def answer(
    accepted: list[Accepted], rejected: list[Rejected], outcome: Outcome
) -> tuple[int, dict[str, Any]]:
    """HTTP status and body.

    202: at least one event is in the log and none that fits the contract is missing.
    400, 413 or 422: every event was refused; the status is that of the first.
    503: events that fit the contract have no ack; `failed` lists them, send those again.
    """
    body: dict[str, Any] = {
        "accepted": len(accepted) - len(outcome.failed),
        "rejected": [
            {
                "index": refused.index,
                "event_id": refused.event_id,
                "code": refused.error.code,
                "message": str(refused.error),
            }
            for refused in rejected
        ],
    }
    error = outcome.error or (rejected[0].error if not accepted else None)
    if error is None:
        return 202, body
    if outcome.error is not None:
        body["failed"] = list(outcome.failed)
    return error.http_status, body | error_body(error.code, str(error), retryable=error.retryable)


class Intake:
    """What the three routes share."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        publisher: Publisher,
        metrics_of: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._limits = time_limits(settings)
        self._now_ms = now_ms
        self._rejected = metrics_of.counter(metrics.INGEST_REJECTED)
        self._seconds = metrics_of.histogram(metrics.INGEST_REQUEST_SECONDS)

    async def take(self, request: Request, split: Split, route: str) -> JSONResponse:
        """Split, validate, append, answer."""
        body = await request.body()
        started = time.perf_counter()
        try:
            parts = split(body)
        except InvalidInput as error:
            self._rejected.labels("http", error.code).inc()
            raise
        clock_ms = self._now_ms()
        accepted, rejected = await self._classify(parts, clock_ms)
        letters = [dead_letter(refused, clock_ms=clock_ms) for refused in rejected]
        outcome = await self._publisher.take(accepted, letters, source="http")
        for refused in rejected:
            self._rejected.labels("http", refused.error.code).inc()
        status, content = answer(accepted, rejected, outcome)
        self._seconds.labels(route).observe(time.perf_counter() - started)
        headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
        return JSONResponse(content, status_code=status, headers=headers)

    async def _classify(
        self, parts: list[bytes], clock_ms: int
    ) -> tuple[list[Accepted], list[Rejected]]:
        accepted: list[Accepted] = []
        rejected: list[Rejected] = []
        for first in range(0, len(parts), _CHUNK_EVENTS):
            if first:
                await asyncio.sleep(0)
            good, bad = classify(
                parts[first : first + _CHUNK_EVENTS],
                clock_ms=clock_ms,
                limits=self._limits,
                first_index=first,
            )
            accepted += good
            rejected += bad
        return accepted, rejected


def scope_of(_method: str, _path: str) -> Scope:
    """What a key needs for a call."""
    return "write"


def routes(intake: Intake) -> Routes:
    """All for callers; operators have metrics and the document of the API."""
    send = APIRouter()

    @send.post("/v1/events", openapi_extra=_body("application/json", "object"))
    async def one(request: Request) -> JSONResponse:
        """One event, or one item update."""
        return await intake.take(request, lambda body: [body], "events")

    @send.post("/v1/events:batch", openapi_extra=_body("application/json", "array"))
    async def batch(request: Request) -> JSONResponse:
        """A JSON array of events."""
        return await intake.take(request, split_array, "events:batch")

    @send.post("/v1/events:ndjson", openapi_extra=_body("application/x-ndjson", "string"))
    async def ndjson(request: Request) -> JSONResponse:
        """One JSON event per line."""
        return await intake.take(request, split_lines, "events:ndjson")

    return Routes(send)


def _body(content_type: str, json_type: str) -> dict[str, Any]:
    content = {content_type: {"schema": {"type": json_type}}}
    return {"requestBody": {"required": True, "content": content}}
