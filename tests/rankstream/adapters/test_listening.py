"""Sockets of a service."""

from __future__ import annotations

import socket

import pytest

from rankstream.adapters.listening import listen
from rankstream.errors import CannotListen


def test_it_listens_at_once_on_a_free_port() -> None:
    (one,) = listen("127.0.0.1", 0)

    with one, socket.create_connection(one.getsockname()):
        pass


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [("127.0.0.1", None, "in use"), ("192.0.2.1", 0, "Cannot assign"), ("no.such.host", 0, "no")],
)
def test_an_address_that_cannot_be_had_is_named(host: str, port: int | None, why: str) -> None:
    with listen("127.0.0.1", 0)[0] as taken:
        wanted = taken.getsockname()[1] if port is None else port

        with pytest.raises(CannotListen, match=rf"cannot_listen: gRPC at {host}:{wanted}: .*{why}"):
            listen(host, wanted, "gRPC")
