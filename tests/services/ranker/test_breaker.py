"""The circuit breaker in front of what the ranker waits for."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, suppress

import grpc
import pytest
from prometheus_client import CollectorRegistry

from rankstream.adapters.metrics import Metrics
from rankstream.pb.retrieval_pb2 import RetrieveRequest
from services.ranker.breaker import Breaker, CircuitOpen
from services.ranker.candidates import RetrievalClient, RetrievalFailed

TIMEOUT_S = 0.1
OPEN_S = 1.0


class Dependency:
    """Calls through a breaker that opens after three late ones."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.breaker = Breaker(
            "retrieval",
            timeout_s=TIMEOUT_S,
            late_max=3,
            open_s=OPEN_S,
            clock_s=lambda: self.now_s,
            metrics_of=Metrics(self.registry),
        )

    def ask(self, takes_s: float, error: type[BaseException] | None = None) -> bool:
        """Whether it was asked."""
        try:
            with self.breaker.call():
                self.now_s += takes_s
                if error is not None:
                    raise error
        except CircuitOpen:
            return False
        except (KeyError, asyncio.CancelledError):
            pass
        return True

    def is_open(self) -> float | None:
        labels = {"dependency": "retrieval"}
        return self.registry.get_sample_value("rankstream_ranker_circuit_open", labels)


@pytest.fixture
def opened() -> Dependency:
    dependency = Dependency()
    for error in (None, KeyError, asyncio.CancelledError):
        assert dependency.ask(TIMEOUT_S, error)
    assert dependency.is_open() == 1
    return dependency


def test_late_calls_in_a_row_open_it_and_nothing_is_asked(opened: Dependency) -> None:
    assert [opened.ask(0.0) for _ in range(3)] == [False, False, False]


def test_a_call_in_time_starts_the_count_again() -> None:
    dependency = Dependency()

    asked = [dependency.ask(takes_s) for takes_s in (TIMEOUT_S, TIMEOUT_S, 0.01) * 5]

    assert all(asked)
    assert dependency.is_open() == 0


def test_calls_that_one_pause_makes_late_count_once() -> None:
    dependency = Dependency()

    with ExitStack() as caught:
        for _ in range(10):
            caught.enter_context(dependency.breaker.call())
        dependency.now_s += TIMEOUT_S

    assert dependency.is_open() == 0
    assert dependency.ask(TIMEOUT_S)
    assert dependency.is_open() == 0
    assert dependency.ask(TIMEOUT_S)
    assert dependency.is_open() == 1


def test_failures_at_once_and_callers_that_leave_do_not_open_it() -> None:
    dependency = Dependency()

    assert all(dependency.ask(0.001, error) for error in (KeyError, asyncio.CancelledError) * 10)
    assert dependency.is_open() == 0


def test_a_probe_in_time_closes_it(opened: Dependency) -> None:
    opened.now_s += OPEN_S

    assert opened.ask(0.01)
    assert opened.is_open() == 0
    assert opened.ask(0.01)


def test_a_late_probe_opens_it_again(opened: Dependency) -> None:
    opened.now_s += OPEN_S

    assert opened.ask(TIMEOUT_S)
    assert not opened.ask(0.0)
    assert opened.is_open() == 1


def test_one_probe_at_a_time_and_one_that_is_given_up_frees_its_place(opened: Dependency) -> None:
    opened.now_s += OPEN_S

    with suppress(asyncio.CancelledError), opened.breaker.call():
        assert not opened.ask(0.0)
        raise asyncio.CancelledError
    assert opened.ask(0.01)
    assert opened.is_open() == 0


def test_a_call_from_before_it_opened_changes_nothing_any_more() -> None:
    dependency = Dependency()

    with dependency.breaker.call():
        for _ in range(3):
            dependency.ask(TIMEOUT_S)
    assert dependency.is_open() == 1


async def test_while_retrieval_hangs_answers_do_not_wait_for_it() -> None:
    async def hang(_body: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await asyncio.Event().wait()
        return b""

    method: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Retrieve": grpc.unary_unary_rpc_method_handler(hang)
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("rankstream.v1.Retrieval", method),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    breaker = Breaker(
        "retrieval",
        timeout_s=TIMEOUT_S,
        late_max=3,
        open_s=60.0,
        clock_s=time.monotonic,
        metrics_of=Metrics(CollectorRegistry()),
    )
    client = RetrievalClient(f"127.0.0.1:{port}", timeout_s=TIMEOUT_S, breaker=breaker)
    reasons = []

    for _ in range(6):
        with pytest.raises(RetrievalFailed) as failed:
            await client.retrieve(RetrieveRequest(k=5))
        reasons.append(failed.value.reason)

    assert reasons == ["retrieval_timeout"] * 3 + ["retrieval_circuit_open"] * 3
    await client.close()
    await server.stop(0)
