"""A served app stops without losing what it accepted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from rankstream.adapters.http import Listener, install_errors, serve, serve_all
from rankstream.adapters.settings import ServiceSettings


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def until_answering(client: httpx.AsyncClient, url: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.get(url)
            except httpx.ConnectError:
                await asyncio.sleep(0.01)
            else:
                return


async def test_sigterm_lets_requests_end_then_background_then_on_stop() -> None:
    order: list[str] = []
    entered, leave = asyncio.Event(), asyncio.Event()
    app = FastAPI()

    @app.get("/fast")
    async def fast() -> None:
        return None

    @app.get("/slow")
    async def slow() -> str:
        entered.set()
        await leave.wait()
        order.append("request")
        return "done"

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("background")

    async def on_stop() -> None:
        order.append("on_stop")

    settings = ServiceSettings(port=free_port())
    url = f"http://127.0.0.1:{settings.port}"
    served = asyncio.create_task(serve(app, settings, on_stop=on_stop, background=[background()]))
    async with httpx.AsyncClient() as client:
        await until_answering(client, f"{url}/fast")
        request = asyncio.create_task(client.get(f"{url}/slow"))
        await entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.2, leave.set)
        reply = await request
    await served

    assert reply.json() == "done"
    assert order == ["request", "background", "on_stop"]


async def test_both_ports_answer_and_stop_together() -> None:
    entered, leave, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
    public, admin = FastAPI(), FastAPI()

    @public.get("/fast")
    async def fast() -> str:
        return "public"

    @admin.get("/slow")
    async def slow() -> str:
        entered.set()
        await leave.wait()
        return "admin"

    async def on_stop() -> None:
        stopped.set()

    settings = ServiceSettings(port=free_port())
    listeners = [Listener(app, "127.0.0.1", free_port()) for app in (public, admin)]
    urls = [f"http://127.0.0.1:{listener.port}" for listener in listeners]
    served = asyncio.create_task(serve_all(listeners, settings, on_stop=on_stop))
    async with httpx.AsyncClient() as client:
        for url in urls:
            await until_answering(client, f"{url}/fast")
        answers = [await client.get(f"{url}/fast") for url in urls]
        request = asyncio.create_task(client.get(f"{urls[1]}/slow"))
        await entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.2, leave.set)
        reply = await request
        await served
        for url in urls:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{url}/fast")

    assert [answer.status_code for answer in answers] == [200, 404]
    assert (reply.json(), stopped.is_set()) == ("admin", True)


async def test_a_background_failure_stops_the_service_and_is_raised() -> None:
    stopped = asyncio.Event()

    async def background() -> None:
        raise RuntimeError("consumer died")

    async def on_stop() -> None:
        stopped.set()

    with pytest.raises(RuntimeError, match="consumer died"):
        await serve(
            FastAPI(),
            ServiceSettings(port=free_port()),
            on_stop=on_stop,
            background=[background()],
        )

    assert stopped.is_set()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_sends_too_much_reads_why(chunked: bool) -> None:
    app = FastAPI()
    install_errors(app, body_bytes_max=1_000)
    stop = asyncio.Event()

    async def on_stop() -> None:
        return None

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    settings = ServiceSettings(port=free_port())
    url = f"http://127.0.0.1:{settings.port}"
    # A background coroutine that ends stops the service.
    served = asyncio.create_task(serve(app, settings, on_stop=on_stop, background=[_until(stop)]))
    async with httpx.AsyncClient(timeout=20) as client:
        await until_answering(client, url)
        reply = await client.post(url, content=chunks() if chunked else b"x" * 10_000_000)
    stop.set()
    await served

    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "too_large"


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
