"""Sockets that a service listens on, and the one error of those that cannot be had."""

from __future__ import annotations

import socket
from typing import Final

from rankstream.errors import CannotListen

BACKLOG: Final = 2_048


def listen(host: str, port: int, protocol: str = "HTTP") -> list[socket.socket]:
    """A listening socket for each address of the host; port 0 takes a free one.

    `protocol`: of what will be served there, for the error.

    Raises: CannotListen.
    """
    bound: list[socket.socket] = []
    try:
        for family, kind, number, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = socket.socket(family, kind, number)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(BACKLOG)
    except OSError as error:
        for one in bound:
            one.close()
        raise CannotListen(
            f"cannot_listen: {protocol} at {host}:{port}: {error.strerror}. Not started. Stop what"
            " listens there (`ss -ltnp` names it), or set another host or port."
        ) from None
    return bound
