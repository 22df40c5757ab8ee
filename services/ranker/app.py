"""The ranker's two transports: gRPC methods and HTTP routes, over the same core.

Decides nothing: `core` decides, this file turns messages into calls and back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
from fastapi import APIRouter

from rankstream.adapters.admission import Admission
from rankstream.adapters.apps import Routes
from rankstream.adapters.http import refusals
from rankstream.adapters.keys import Scope
from rankstream.adapters.rpc import unary
from rankstream.errors import InvalidRequest, Overloaded
from rankstream.pb import ranker_pb2 as pb
from services.ranker.core import Ranker
from services.ranker.requests import (
    ExplainReplyBody,
    RankReplyBody,
    RankRequest,
    RecommendRequest,
    ReproduceReplyBody,
    rank_of,
    recommend_of,
)

Admit = Callable[[float | None], Awaitable[None]]
Methods = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]

SERVICE = "rankstream.v1.Ranker"
GRPC = "grpc"
HTTP = "http"
# What a key needs for a call. Past answers are of any user, so they are for admins, and the public
# port does not know their methods.
SCOPES: Final[Mapping[str, Scope]] = {
    "Recommend": "read",
    "Rank": "read",
    "Explain": "admin",
    "Reproduce": "admin",
}
REFUSED = (400, 401, 403, 404, 409, 413, 422, 429, 503)


def admit(ranker: Ranker, admission: Admission, method: str, transport: str) -> Admit:
    """What an answer waits for before it begins. It raises Overloaded, counted."""

    async def turn(left_s: float | None) -> None:
        try:
            await admission.turn(left_s)
        except Overloaded as error:
            ranker.refused(method, transport, error)
            raise

    return turn


def methods(ranker: Ranker, admission: Admission) -> Methods:
    """gRPC method handlers by name; answers of both transports share one admission."""

    async def recommend(request: pb.RecommendRequest) -> pb.RankReply:
        try:
            parsed = recommend_of(request)
        except InvalidRequest as error:
            ranker.refused("recommend", GRPC, error)
            raise
        return await ranker.recommend(parsed, transport=GRPC)

    async def rank(request: pb.RankRequest) -> pb.RankReply:
        try:
            parsed = rank_of(request)
        except InvalidRequest as error:
            ranker.refused("rank", GRPC, error)
            raise
        return await ranker.rank(parsed, transport=GRPC)

    async def explain(request: pb.ExplainRequest) -> pb.ExplainReply:
        return await ranker.explain(request.request_id, transport=GRPC)

    async def reproduce(request: pb.ReproduceRequest) -> pb.ReproduceReply:
        return await ranker.reproduce(request.request_id, request.record, transport=GRPC)

    def malformed(method: str) -> Any:
        return lambda error: ranker.refused(method, GRPC, error)

    def turn(method: str) -> Admit:
        return admit(ranker, admission, method, GRPC)

    return {
        "Recommend": unary(
            pb.RecommendRequest,
            recommend,
            on_malformed=malformed("recommend"),
            admit=turn("recommend"),
        ),
        "Rank": unary(pb.RankRequest, rank, on_malformed=malformed("rank"), admit=turn("rank")),
        "Reproduce": unary(pb.ReproduceRequest, reproduce, on_malformed=malformed("reproduce")),
        "Explain": unary(pb.ExplainRequest, explain, on_malformed=malformed("explain")),
    }


def public_methods(every: Methods) -> Methods:
    """Those of the public port."""
    return {name: method for name, method in every.items() if SCOPES[name] != "admin"}


def scope_of(_method: str, path: str) -> Scope:
    """What a key needs for a call over HTTP: as SCOPES says for gRPC."""
    return "read" if path in ("/v1/recommend", "/v1/rank") else "admin"


def routes(ranker: Ranker, admission: Admission) -> Routes:
    """The same calls as JSON: the fields of ranker.proto by their names there."""
    public, admin = (APIRouter(responses=refusals(*REFUSED)) for _ in range(2))
    recommend_turn = admit(ranker, admission, "recommend", HTTP)
    rank_turn = admit(ranker, admission, "rank", HTTP)

    @public.post("/v1/recommend", summary="Recommend items to a user")
    async def recommend(request: RecommendRequest) -> RankReplyBody:
        await recommend_turn(None)
        reply = await ranker.recommend(request, transport=HTTP)
        return RankReplyBody.model_validate(_plain(reply))

    @public.post("/v1/rank", summary="Order the given items for a user")
    async def rank(request: RankRequest) -> RankReplyBody:
        await rank_turn(None)
        reply = await ranker.rank(request, transport=HTTP)
        return RankReplyBody.model_validate(_plain(reply))

    @admin.get("/v1/answers/{request_id}", summary="Explain a past answer")
    async def explain(request_id: str) -> ExplainReplyBody:
        reply = await ranker.explain(request_id, transport=HTTP)
        return ExplainReplyBody.model_validate(_plain(reply))

    @admin.get("/v1/answers/{request_id}/reproduction", summary="Make a past answer again")
    async def reproduce(request_id: str) -> ReproduceReplyBody:
        reply = await ranker.reproduce(request_id, b"", transport=HTTP)
        return ReproduceReplyBody.model_validate(_plain(reply))

    @admin.get("/v1/canary", summary="What runs as a canary, and how it goes")
    async def canary() -> dict[str, object]:
        return ranker.canary()

    return Routes(public, admin)


def _plain(message: Any) -> Any:
    """A message as dicts and lists, every field present, 64-bit integers as numbers.

    A message that is not there is None.
    """
    plain = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None:
            if field.is_repeated:
                value = [_plain(each) for each in value]
            else:
                value = _plain(value) if message.HasField(field.name) else None
        elif field.is_repeated:
            value = list(value)
        plain[field.name] = value
    return plain
