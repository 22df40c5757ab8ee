"""HTTP of every service: named errors, request ids, the limit on bodies, health."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from rankstream import metrics
from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.http import install_errors
from rankstream.adapters.metrics import Metrics
from rankstream.errors import QueueFull, UnknownExperiment

BYTES_MAX = 1_000


class Cup(BaseModel):
    size_ml: int


@pytest.fixture
def health() -> Health:
    return Health("kafka")


@pytest.fixture
async def client(health: Health) -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    Metrics(registry).counter(metrics.INGEST_DEAD_LETTERS).labels("x").inc()
    app = FastAPI(routes=[*health_routes(health, registry)])
    install_errors(app, body_bytes_max=BYTES_MAX)

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.post("/cup")
    async def cup(cup: Cup) -> int:
        return cup.size_ml

    @app.get("/full")
    async def full() -> None:
        raise QueueFull("queue_full: no room")

    @app.get("/unknown")
    async def unknown() -> None:
        raise UnknownExperiment("unknown_experiment: x")

    @app.get("/bug")
    async def bug() -> None:
        raise KeyError("secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_named_error_becomes_its_status_and_code(client: httpx.AsyncClient) -> None:
    reply = await client.get("/unknown")

    assert reply.status_code == 404
    assert reply.json() == {
        "error": {
            "code": "unknown_experiment",
            "message": "unknown_experiment: x",
            "retryable": False,
        }
    }


async def test_a_retryable_error_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    reply = await client.get("/full")

    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


async def test_a_bug_answers_500_and_tells_nothing_of_itself(client: httpx.AsyncClient) -> None:
    reply = await client.get("/bug")

    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal"
    assert "secret" not in reply.text


@pytest.mark.parametrize(
    ("body", "status"), [(b'{"size_ml": "big"}', 422), (b"{", 400), (b"{}", 422)]
)
async def test_a_body_of_another_shape_is_an_invalid_request(
    client: httpx.AsyncClient, body: bytes, status: int
) -> None:
    reply = await client.post("/cup", content=body, headers={"content-type": "application/json"})

    assert reply.status_code == status
    assert reply.json()["error"]["code"] == "invalid_request"


async def test_an_unknown_path_has_our_error_body(client: httpx.AsyncClient) -> None:
    reply = await client.get("/nowhere")

    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


async def test_a_declared_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    reply = await client.post("/length", content=b"x" * (BYTES_MAX + 1))

    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(("size", "status"), [(BYTES_MAX, 200), (BYTES_MAX + 1, 413)])
async def test_a_chunked_body_has_the_same_limit(
    client: httpx.AsyncClient, size: int, status: int
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    reply = await client.post("/length", content=chunks())

    assert reply.status_code == status
    assert status != 200 or reply.json() == size


async def test_a_request_id_is_given_back(client: httpx.AsyncClient) -> None:
    reply = await client.get("/healthz", headers={"X-Request-Id": "r-1"})

    assert reply.headers["x-request-id"] == "r-1"


async def test_a_missing_request_id_is_minted(client: httpx.AsyncClient) -> None:
    first, second = await client.get("/healthz"), await client.get("/healthz")

    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_service_is_ready_once_all_its_parts_are(
    client: httpx.AsyncClient, health: Health
) -> None:
    before = await client.get("/readyz")
    health.ready("kafka")
    after = await client.get("/readyz")
    health.not_ready("kafka", "gone")
    later = await client.get("/readyz")

    assert (before.status_code, before.json()["reasons"]) == (503, {"kafka": "starting"})
    assert (after.status_code, after.json()) == (200, {"ready": True, "reasons": {}})
    assert (later.status_code, later.json()["reasons"]) == (503, {"kafka": "gone"})


async def test_metrics_show_what_was_counted_and_the_process(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text

    assert 'rankstream_ingest_dead_letters_total{code="x"} 1.0' in text
    assert "rankstream_process_cpu_seconds_total" in text
