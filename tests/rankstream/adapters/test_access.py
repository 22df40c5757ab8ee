"""API keys: who may call what, how often, and what is told to those who may not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from fastapi import FastAPI
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from rankstream.adapters.access import Access, access_of, protect
from rankstream.adapters.access_rpc import KeyInterceptor
from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.http import install_errors
from rankstream.adapters.keys import Key, Scope, new_key, read_keys
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server, unary
from rankstream.adapters.settings import PublicSettings
from rankstream.errors import InvalidSettings, RateLimited
from rankstream.pb.ranker_pb2 import ExplainReply, ExplainRequest

SERVICE = "test.Service"


@dataclass
class Clock:
    now_s: float = 0.0


@dataclass
class Door:
    """A service of one read and one write call, behind keys `reader` and `writer`."""

    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    registry: CollectorRegistry
    secrets: dict[str, str]
    clock: Clock

    def headers(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets.get(name, name)}"} if name else {}

    async def over_http(self, name: str, method: str, path: str) -> httpx.Response:
        return await self.http.request(method, path, headers=self.headers(name))

    async def over_grpc(self, name: str, method: str) -> tuple[str, dict[str, Any]]:
        call: Any = self.channel.unary_unary(method)
        try:
            await call(b"", metadata=tuple(self.headers(name).items()))
        except grpc.aio.AioRpcError as error:
            return error.code().name, dict(tuple(error.trailing_metadata() or ()))
        return "OK", {}

    def count(self, key: str, outcome: str) -> float:
        labels = {"key": key, "outcome": outcome}
        return self.registry.get_sample_value("rankstream_access_calls_total", labels) or 0.0


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    registry, health, clock = CollectorRegistry(), Health(), Clock()
    made = {
        "reader": new_key("reader", ("read",), rate_per_s=0.5, burst=2),
        "writer": new_key("writer", ("read", "write"), rate_per_s=100.0, burst=100),
        "admin": new_key("admin", ("admin",), rate_per_s=100.0, burst=100),
    }
    keys = [key for _, key in made.values()]
    secrets = {name: secret for name, (secret, _) in made.items()}
    access = Access(keys, clock_s=lambda: clock.now_s, metrics_of=Metrics(registry))
    app = FastAPI(routes=[*health_routes(health, registry)])

    def scope_of(method: str, _path: str) -> Scope:
        return "read" if method == "GET" else "write"

    protect(app, access, scope_of)
    install_errors(app)

    @app.get("/v1/thing")
    async def read() -> str:
        return "thing"

    @app.post("/v1/thing")
    async def write() -> str:
        return "written"

    async def answer(_request: ExplainRequest) -> ExplainReply:
        return ExplainReply()

    method = unary(ExplainRequest, answer, on_malformed=lambda _error: None)
    server, port = await start_server(
        "127.0.0.1:0",
        SERVICE,
        {"Read": method, "Write": method},
        health,
        interceptors=[KeyInterceptor(access, {"Read": "read", "Write": "write"})],
    )
    transport = httpx.ASGITransport(app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Door(http, channel, registry, secrets, clock)
    await server.stop(0)


@pytest.mark.parametrize("name", ["", "not-a-key", "writer "])
async def test_without_a_known_key_nothing_is_answered(door: Door, name: str) -> None:
    over_http = await door.over_http(name, "GET", "/v1/thing")
    status, told = await door.over_grpc(name, f"/{SERVICE}/Read")

    assert (over_http.status_code, over_http.json()["error"]["code"]) == (401, "unauthenticated")
    assert (status, told["error-code"]) == ("UNAUTHENTICATED", "unauthenticated")
    assert door.count("unknown", "unauthenticated") == 2


async def test_a_key_without_the_scope_is_refused(door: Door) -> None:
    over_http = await door.over_http("reader", "POST", "/v1/thing")
    status, told = await door.over_grpc("reader", f"/{SERVICE}/Write")

    assert (over_http.status_code, over_http.json()["error"]["code"]) == (403, "permission_denied")
    assert (status, told["error-code"]) == ("PERMISSION_DENIED", "permission_denied")
    assert door.count("reader", "permission_denied") == 2


async def test_a_key_with_the_scope_is_answered_and_counted(door: Door) -> None:
    assert (await door.over_http("writer", "POST", "/v1/thing")).status_code == 200
    assert (await door.over_grpc("writer", f"/{SERVICE}/Write"))[0] == "OK"
    assert door.count("writer", "ok") == 2


async def test_over_its_rate_a_key_waits_whatever_the_transport(door: Door) -> None:
    first = await door.over_http("reader", "GET", "/v1/thing")
    second, _ = await door.over_grpc("reader", f"/{SERVICE}/Read")
    third = await door.over_http("reader", "GET", "/v1/thing")
    fourth, told = await door.over_grpc("reader", f"/{SERVICE}/Read")
    door.clock.now_s += 2.0
    later = await door.over_http("reader", "GET", "/v1/thing")

    assert (first.status_code, second) == (200, "OK")
    assert (third.status_code, third.headers["retry-after"]) == (429, "2")
    assert third.json()["error"]["code"] == "rate_limited"
    assert (fourth, told["retry-after"], told["retryable"]) == ("RESOURCE_EXHAUSTED", "2", "true")
    assert later.status_code == 200
    assert door.count("reader", "rate_limited") == 2


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/openapi.json", "/v1", "//v1/thing"])
async def test_metrics_and_documents_are_for_admins(door: Door, path: str) -> None:
    assert (await door.over_http("writer", "GET", path)).status_code == 403
    assert (await door.over_http("admin", "GET", path)).status_code in (200, 404)


async def test_reflection_is_for_admins_and_health_for_all(door: Door) -> None:
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    health: Any = door.channel.unary_unary("/grpc.health.v1.Health/Check")

    assert (await door.over_grpc("writer", reflection))[0] == "PERMISSION_DENIED"
    assert await health(health_pb2.HealthCheckRequest().SerializeToString())
    assert (await door.over_http("", "GET", "/healthz")).status_code == 200
    assert (await door.over_http("", "GET", "/readyz")).status_code == 200


@given(
    st.floats(0.5, 100.0),
    st.integers(1, 20),
    st.lists(st.floats(0.0, 0.5), min_size=1, max_size=80),
)
def test_in_any_time_a_key_gets_its_burst_and_its_rate_and_no_more(
    rate_per_s: float, burst: int, pauses_s: list[float]
) -> None:
    secret, key = new_key("k", ("read",), rate_per_s=rate_per_s, burst=burst)
    now_s, taken = 0.0, 0
    access = Access([key], clock_s=lambda: now_s, metrics_of=Metrics(CollectorRegistry()))

    for pause_s in pauses_s:
        now_s += pause_s
        with suppress(RateLimited):
            access.check(f"Bearer {secret}", "read")
            taken += 1

    assert taken <= burst + rate_per_s * now_s + 1e-6
    assert taken >= min(burst, len(pauses_s))


def test_a_key_file_says_what_is_wrong_with_it_and_no_hash(tmp_path: Path) -> None:
    _, key = new_key("web", ("read",), rate_per_s=1.0, burst=1)
    line = key.model_dump_json()
    wrong = {
        "": "0 keys",
        "# only a comment\n": "0 keys",
        f"{line}\n{line}": "two keys with one name",
        f"{line}\n" + line.replace('"web"', '"app"'): "two keys with one sha256",
        line.replace("read", "root"): "line 1: scopes.0",
        line.replace(key.sha256, "secret"): "line 1: sha256",
        "not json": "line 1: ",
    }
    path = tmp_path / "keys"
    for text, why in wrong.items():
        path.write_text(text)
        with pytest.raises(InvalidSettings, match=f"invalid_settings: key file .*{why}") as refused:
            read_keys(path)
        assert key.sha256 not in str(refused.value)
    with pytest.raises(InvalidSettings, match="FileNotFoundError"):
        read_keys(tmp_path / "none")

    path.write_text(f"# web\n\n{line}\n")
    assert read_keys(path) == [key]


@pytest.mark.parametrize(
    ("host", "warns"),
    [("127.0.0.1", 0), ("::1", 0), ("localhost", 0), ("0.0.0.0", 1), ("box", 1)],
)
@pytest.mark.parametrize("of", ["host", "admin_host"])
def test_open_to_the_network_without_keys_is_warned_of(host: str, warns: int, of: str) -> None:
    settings = PublicSettings.model_validate({"port": 1, "admin_port": 2, of: host})
    with capture_logs() as logs:
        access = access_of(settings, metrics_of=Metrics(CollectorRegistry()))

    assert access is None
    assert [line["event"] for line in logs] == ["open_to_all"] * warns


def test_keys_are_random_and_only_their_hash_is_kept() -> None:
    made = [new_key("k", ("read",), rate_per_s=1.0, burst=1) for _ in range(3)]

    assert len({secret for secret, _ in made}) == 3
    assert all(len(secret) >= 43 and secret not in key.model_dump_json() for secret, key in made)
    with pytest.raises(InvalidSettings, match="name"):
        new_key("a b", ("read",), rate_per_s=1.0, burst=1)


def test_a_line_is_read_as_it_was_made() -> None:
    _, key = new_key("k", ("read", "admin"), rate_per_s=2.5, burst=7)

    assert Key.model_validate_json(key.model_dump_json()) == key
