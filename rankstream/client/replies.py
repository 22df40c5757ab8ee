"""What a client gets back: results, and the errors that replies carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from rankstream.errors import (
    DependencyUnavailable,
    InvalidRequest,
    NotFound,
    RankstreamError,
    Unavailable,
)
from rankstream.pb import ranker_pb2

REJECTIONS_KEPT = 1_000


@dataclass(frozen=True)
class Rejection:
    """One event that was refused; `index` is its place in what was sent, from 0."""

    index: int
    event_id: str
    code: str
    message: str


@dataclass(frozen=True)
class SendResult:
    """Counts over everything sent; `rejections` are the first REJECTIONS_KEPT of the rejected."""

    accepted: int = 0
    rejected: int = 0
    rejections: tuple[Rejection, ...] = ()

    def __add__(self, other: SendResult) -> SendResult:
        return SendResult(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            (self.rejections + other.rejections)[:REJECTIONS_KEPT],
        )


@dataclass(frozen=True)
class RankedItem:
    """One slot of a slate; `propensity` is P(item in this slot | slots above), 0 if that is
    simulated later: its explanation has it."""

    item_id: str
    score: float
    propensity: float
    category: str


@dataclass(frozen=True)
class Ranking:
    """A slate, best first; `degraded` names what was missing when it was made."""

    request_id: str
    items: tuple[RankedItem, ...]
    model_id: str
    index_id: str
    experiment_id: str
    variant: str
    degraded: tuple[str, ...]
    served_time_ms: int
    candidates: int
    unknown_item_ids: tuple[str, ...]


@dataclass(frozen=True)
class Contribution:
    """What one feature added to a logit."""

    feature: str
    value: float
    contribution: float


@dataclass(frozen=True)
class ExplainedItem:
    """Why one item stood where it stood; contributions largest first."""

    item_id: str
    logit: float
    pctr: float
    propensity: float
    contributions: tuple[Contribution, ...]
    place: int
    propensity_error: float
    team: int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyStep:
    """What a step of the policy moved: slots, and places of their items before and after it."""

    name: str
    slots: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    removed: int


@dataclass(frozen=True)
class Explanation:
    """Why a past answer was what it was.

    `cut_from` candidates were cut by the linear stand-in of model `cut_by`; "": none were.
    """

    request_id: str
    user_id: str
    served_time_ms: int
    model_id: str
    index_id: str
    spec_id: str
    experiment_id: str
    variant: str
    items: tuple[ExplainedItem, ...]
    degraded: tuple[str, ...]
    method: str
    policy: str
    policy_hash: str
    steps: tuple[PolicyStep, ...]
    propensity_draws: int
    other_model_id: str
    cut_by: str
    cut_from: int


@dataclass(frozen=True)
class Difference:
    """Where an answer made again differs from its record."""

    code: str
    detail: str


@dataclass(frozen=True)
class Reproduction:
    """A past answer made again; without differences it is equal to the last bit."""

    request_id: str
    model_id: str
    model_sha256: str
    data_version: str
    policy: str
    policy_hash: str
    items: int
    candidates: int
    differences: tuple[Difference, ...]


def _codes(cls: type[RankstreamError]) -> Iterator[tuple[str, type[RankstreamError]]]:
    yield cls.code, cls
    for child in cls.__subclasses__():
        yield from _codes(child)


ERROR_OF_CODE: Mapping[str, type[RankstreamError]] = dict(_codes(RankstreamError))


def error_of_reply(status: int, body: object) -> RankstreamError:
    """The error that an HTTP refusal carries; by its status if the body is not one of ours."""
    found = body.get("error") if isinstance(body, dict) else None
    if isinstance(found, dict) and found.get("code") in ERROR_OF_CODE:
        return ERROR_OF_CODE[found["code"]](str(found.get("message", "")))
    fallback = Unavailable if status >= 500 else NotFound if status == 404 else InvalidRequest
    return fallback(f"{fallback.code}: HTTP status {status} without one of our error bodies")


def error_of_call(error: grpc.RpcError) -> RankstreamError:
    """The error that a gRPC refusal carries: its code is in the trailing metadata."""
    assert isinstance(error, grpc.Call)
    status, details = error.code(), error.details() or ""
    code = next((str(v) for k, v in error.trailing_metadata() or () if k == "error-code"), "")
    if code in ERROR_OF_CODE:
        return ERROR_OF_CODE[code](details)
    fallback = {
        grpc.StatusCode.UNAVAILABLE: DependencyUnavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
        grpc.StatusCode.NOT_FOUND: NotFound,
    }.get(status, RankstreamError)
    return fallback(f"{fallback.code}: {status.name}: {details}")


def send_result(body: Mapping[str, Any], place: Callable[[int], int]) -> SendResult:
    rejections = tuple(
        Rejection(place(entry["index"]), entry["event_id"], entry["code"], entry["message"])
        for entry in body["rejected"]
    )
    return SendResult(body["accepted"], len(rejections), rejections[:REJECTIONS_KEPT])


def ranking(reply: ranker_pb2.RankReply) -> Ranking:
    columns = (reply.item_id, reply.score, reply.propensity, reply.category)
    return Ranking(
        request_id=reply.request_id,
        items=tuple(RankedItem(*slot) for slot in zip(*columns, strict=True)),
        model_id=reply.model_id,
        index_id=reply.index_id,
        experiment_id=reply.experiment_id,
        variant=reply.variant,
        degraded=tuple(reply.degraded),
        served_time_ms=reply.served_time_ms,
        candidates=reply.candidates,
        unknown_item_ids=tuple(reply.unknown_item_ids),
    )


def explanation(reply: ranker_pb2.ExplainReply) -> Explanation:
    items = tuple(
        ExplainedItem(
            item.item_id,
            item.logit,
            item.pctr,
            item.propensity,
            tuple(Contribution(c.feature, c.value, c.contribution) for c in item.contributions),
            item.place,
            item.propensity_error,
            item.team,
            tuple(item.sources),
        )
        for item in reply.items
    )
    return Explanation(
        request_id=reply.request_id,
        user_id=reply.user_id,
        served_time_ms=reply.served_time_ms,
        model_id=reply.model_id,
        index_id=reply.index_id,
        spec_id=reply.spec_id,
        experiment_id=reply.experiment_id,
        variant=reply.variant,
        items=items,
        degraded=tuple(reply.degraded),
        method=reply.method,
        policy=reply.policy,
        policy_hash=reply.policy_hash,
        steps=tuple(
            PolicyStep(
                step.name, tuple(step.slot), tuple(step.before), tuple(step.after), step.removed
            )
            for step in reply.steps
        ),
        propensity_draws=reply.propensity_draws,
        other_model_id=reply.other_model_id,
        cut_by=reply.prerank.model_id,
        cut_from=reply.prerank.before,
    )


def reproduction(reply: ranker_pb2.ReproduceReply) -> Reproduction:
    return Reproduction(
        request_id=reply.request_id,
        model_id=reply.model_id,
        model_sha256=reply.model_sha256,
        data_version=reply.data_version,
        policy=reply.policy,
        policy_hash=reply.policy_hash,
        items=reply.items,
        candidates=reply.candidates,
        differences=tuple(Difference(d.code, d.detail) for d in reply.differences),
    )
