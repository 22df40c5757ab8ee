"""What the public port of a service answers, and what only the admin port does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from rankstream.adapters.access import Access
from rankstream.adapters.apps import Routes, build_apps
from rankstream.adapters.health import Health
from rankstream.adapters.keys import Scope, new_key
from rankstream.adapters.metrics import Metrics

PUBLIC = [("GET", "/v1/thing"), ("GET", "/healthz")]
FOR_OPERATORS = [
    ("POST", "/v1/secret"),
    ("GET", "/v1/secret"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
]


@dataclass
class Ports:
    """Clients of both ports, and what is wrong with the service."""

    public: httpx.AsyncClient
    admin: httpx.AsyncClient
    health: Health


def routes() -> Routes:
    public, admin = APIRouter(), APIRouter()

    @public.get("/v1/thing")
    async def thing() -> str:
        return "thing"

    @admin.get("/v1/secret")
    async def tell() -> str:
        return "secret"

    @admin.post("/v1/secret")
    async def change() -> str:
        return "changed"

    return Routes(public, admin)


def scope_of(_method: str, path: str) -> Scope:
    return "read" if path == "/v1/thing" else "admin"


@pytest.fixture(params=["open", "keys"])
async def ports(request: pytest.FixtureRequest) -> AsyncIterator[Ports]:
    """Both ports; with keys, the clients have one of all scopes."""
    registry, health = CollectorRegistry(), Health()
    secret, key = new_key("all", ("read", "write", "admin"), rate_per_s=1e6, burst=1_000)
    access = Access([key], clock_s=lambda: 0.0, metrics_of=Metrics(registry))
    apps = build_apps(
        "test",
        routes(),
        health,
        registry,
        access=access if request.param == "keys" else None,
        scope_of=scope_of,
    )
    headers = {"authorization": f"Bearer {secret}"}
    public, admin = (
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", headers=headers
        )
        for app in (apps.public, apps.admin)
    )
    async with public, admin:
        yield Ports(public, admin, health)


@pytest.mark.parametrize(("method", "path"), PUBLIC)
async def test_both_ports_answer_what_is_public(ports: Ports, method: str, path: str) -> None:
    for client in (ports.public, ports.admin):
        assert (await client.request(method, path)).status_code == 200


@pytest.mark.parametrize(("method", "path"), FOR_OPERATORS)
async def test_the_public_port_knows_nothing_that_is_for_operators(
    ports: Ports, method: str, path: str
) -> None:
    hidden = await ports.public.request(method, path)

    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "not_found")
    assert (await ports.admin.request(method, path)).status_code == 200


async def test_why_a_service_is_not_ready_is_for_operators(ports: Ports) -> None:
    ports.health.not_ready("redis", "redis.internal:6379 refused")

    public, admin = await ports.public.get("/readyz"), await ports.admin.get("/readyz")
    ports.health.ready("redis")
    later = await ports.public.get("/readyz")

    assert (public.status_code, public.json()) == (503, {"ready": False})
    assert admin.json()["reasons"] == {"redis": "redis.internal:6379 refused"}
    assert (later.status_code, later.json()) == (200, {"ready": True})


async def test_the_document_of_the_api_has_both_ports(ports: Ports) -> None:
    document = (await ports.admin.get("/openapi.json")).json()

    assert set(document["paths"]) == {"/v1/thing", "/v1/secret"}
