"""Candidates over gRPC. Decides nothing: `rankstream.candidates` decides."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from rankstream.adapters.rpc import unary
from rankstream.candidates.retrieval import Retrieval
from rankstream.pb import retrieval_pb2

SERVICE = "rankstream.v1.Retrieval"


def methods(retrieval: Retrieval) -> Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """gRPC method handlers by name."""
    return {
        "Retrieve": unary(
            retrieval_pb2.RetrieveRequest, retrieval.retrieve, on_malformed=retrieval.refused
        ),
        "RetrieveShard": unary(
            retrieval_pb2.RetrieveRequest, retrieval.retrieve_shard, on_malformed=retrieval.refused
        ),
    }
