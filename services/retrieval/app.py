"""Candidates over gRPC. Decides nothing: `rankstream.candidates` decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from rankstream.adapters.rpc import unary
from rankstream.candidates.retrieval import Retrieval
from rankstream.errors import Overloaded
from rankstream.pb import retrieval_pb2 as pb
from services.retrieval.deadlines import Deadlines

SERVICE = "rankstream.v1.Retrieval"
PENDING_MAX: Final = 64
"""Calls that may wait inside gRPC; `start_server` says what becomes of others."""


def methods(
    retrieval: Retrieval, deadlines: Deadlines
) -> Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """gRPC method handlers by name."""

    async def in_time(left_s: float | None) -> None:
        try:
            deadlines.check(left_s)
        except Overloaded as error:
            retrieval.refused(error)
            raise

    return {
        "Retrieve": unary(
            pb.RetrieveRequest,
            deadlines.timed(retrieval.retrieve),
            on_malformed=retrieval.refused,
            admit=in_time,
        ),
        "RetrieveShard": unary(
            pb.RetrieveRequest,
            deadlines.timed(retrieval.retrieve_shard),
            on_malformed=retrieval.refused,
            admit=in_time,
        ),
    }
