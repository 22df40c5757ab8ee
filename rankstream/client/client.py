"""The client itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import grpc
import httpx
from google.protobuf.message import Message as PbMessage

from rankstream.client.replies import (
    Explanation,
    Ranking,
    Reproduction,
    SendResult,
    error_of_call,
    error_of_reply,
    explanation,
    ranking,
    reproduction,
    send_result,
)
from rankstream.contracts.events import Message
from rankstream.contracts.experiment import Scorecard
from rankstream.contracts.filter import ItemFilter, Place, encode_filter, encode_place
from rankstream.errors import DependencyUnavailable, RankstreamError, TooLarge
from rankstream.pb import ranker_pb2

INGEST_URL = "http://127.0.0.1:8001"
RANKER_TARGET = "127.0.0.1:9004"
RANKER_ADMIN_TARGET = "127.0.0.1:9104"
EXPERIMENTS_URL = "http://127.0.0.1:8005"

ATTEMPTS_MAX = 5
BACKOFF_S = 0.2
"""Wait before the second attempt; each further wait is twice as long."""

EVENTS_PER_REQUEST = 1_000
BYTES_PER_REQUEST = 1_000_000

T = TypeVar("T")
Q = TypeVar("Q", bound=PbMessage)
R = TypeVar("R", bound=PbMessage)


class Client:
    """Talks to ingest and experiments over HTTP, to the ranker over gRPC.

    A retryable refusal is tried again, ATTEMPTS_MAX times in all; sending again is safe, because
    the stream folds an event_id once. `api_key` goes with every call, where services ask for one.
    Past answers are explained and reproduced at the ranker's admin port only.
    """

    def __init__(
        self,
        ingest_url: str = INGEST_URL,
        ranker_target: str = RANKER_TARGET,
        experiments_url: str = EXPERIMENTS_URL,
        *,
        ranker_admin_target: str = RANKER_ADMIN_TARGET,
        api_key: str = "",
        timeout_s: float = 15.0,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._ingest_url = ingest_url.rstrip("/")
        self._experiments_url = experiments_url.rstrip("/")
        self._timeout_s = timeout_s
        self._sleep = sleep
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._metadata = tuple(headers.items())
        self._http = httpx.Client(timeout=timeout_s, transport=transport, headers=headers)
        self._channel = grpc.insecure_channel(ranker_target)
        self._admin_channel = grpc.insecure_channel(ranker_admin_target)
        public, admin = self._channel, self._admin_channel
        self._recommend = _method(
            public, "Recommend", ranker_pb2.RecommendRequest, ranker_pb2.RankReply
        )
        self._rank = _method(public, "Rank", ranker_pb2.RankRequest, ranker_pb2.RankReply)
        self._explain = _method(
            admin, "Explain", ranker_pb2.ExplainRequest, ranker_pb2.ExplainReply
        )
        self._reproduce = _method(
            admin, "Reproduce", ranker_pb2.ReproduceRequest, ranker_pb2.ReproduceReply
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._channel.close()
        self._admin_channel.close()

    def send(self, events: Iterable[Message]) -> SendResult:
        """Send events and item updates. Raises: as send_lines."""
        return self.send_lines(event.model_dump_json().encode() for event in events)

    def send_file(self, path: Path) -> SendResult:
        """Send an NDJSON file. A rejection's index is the line's, from 0. Raises: as send_lines."""
        with path.open("rb") as lines:
            return self.send_lines(lines)

    def send_lines(self, lines: Iterable[bytes]) -> SendResult:
        """Send JSON events, one a line; blank lines are left out.

        Raises: RankstreamError when a request is refused as a whole or the log stays away. The
            message says how many events were accepted before.
        """
        result = SendResult()
        try:
            for chunk in _chunks(lines):
                result += self._send_chunk(chunk)
        except RankstreamError as error:
            done = f" {result.accepted} events were accepted before; sending all again is safe."
            raise type(error)(str(error) + done) from None
        return result

    def send_body(self, body: bytes) -> SendResult:
        """Send the bytes of one event or of an array of events, as they are."""
        is_array = body.lstrip()[:1] == b"["
        path = "/v1/events:batch" if is_array else "/v1/events"

        def post() -> SendResult:
            reply = self._post(path, body)
            if reply.status_code == 202 or _tells_rejections(reply):
                return send_result(reply.json(), lambda index: index)
            raise error_of_reply(reply.status_code, _json(reply))

        return self._again(post)

    def _send_chunk(self, chunk: Sequence[tuple[int, bytes]]) -> SendResult:
        result = SendResult()
        left = list(chunk)

        def post() -> None:
            nonlocal left, result
            reply = self._post("/v1/events:ndjson", b"\n".join(line for _, line in left))
            body = _json(reply)
            if not (reply.status_code == 202 or _tells_rejections(reply) or _tells_failed(body)):
                raise error_of_reply(reply.status_code, body)
            places = [index for index, _ in left]
            result += send_result(body, places.__getitem__)
            left = [left[index] for index in body.get("failed", ())]
            if left:
                raise error_of_reply(reply.status_code, body)

        self._again(post)
        return result

    def recommend(
        self,
        user_id: str,
        *,
        n: int = 0,
        request_id: str = "",
        context: Mapping[str, str] | None = None,
        exclude_item_ids: Sequence[str] = (),
        variant_overrides: Mapping[str, str] | None = None,
        preview: bool = False,
        filter: ItemFilter | None = None,
        place: Place | None = None,
    ) -> Ranking:
        """A slate for the user; n = 0 leaves its length to the server.

        `context` holds device, query, location, session_id; `place` is where the user is. A
        preview logs nothing. Only items that pass `filter` come back.
        """
        around = _context(context)
        if place is not None:
            around.place.CopyFrom(encode_place(place))
        request = ranker_pb2.RecommendRequest(
            request_id=request_id,
            user_id=user_id,
            n=n,
            context=around,
            exclude_item_ids=exclude_item_ids,
            variant_overrides=variant_overrides or {},
            preview=preview,
            filter=None if filter is None else encode_filter(filter),
        )
        return ranking(self._call(self._recommend, request))

    def rank(
        self,
        user_id: str,
        item_ids: Sequence[str],
        *,
        n: int = 0,
        request_id: str = "",
        context: Mapping[str, str] | None = None,
        variant_overrides: Mapping[str, str] | None = None,
        preview: bool = False,
    ) -> Ranking:
        """The given items in order for the user; n = 0 returns all of them."""
        request = ranker_pb2.RankRequest(
            request_id=request_id,
            user_id=user_id,
            item_ids=item_ids,
            n=n,
            context=_context(context),
            variant_overrides=variant_overrides or {},
            preview=preview,
        )
        return ranking(self._call(self._rank, request))

    def explain(self, request_id: str) -> Explanation:
        """Why a past answer was what it was. Raises: UnknownAnswer."""
        request = ranker_pb2.ExplainRequest(request_id=request_id)
        return explanation(self._call(self._explain, request))

    def reproduce(self, request_id: str, *, record: bytes = b"") -> Reproduction:
        """A past answer made again and compared; `record`: its record of topic served, if the
        ranker does not keep the answer any more.

        Raises: UnknownAnswer, SpecMismatch.
        """
        request = ranker_pb2.ReproduceRequest(request_id=request_id, record=record)
        return reproduction(self._call(self._reproduce, request))

    def scorecard(self, experiment_id: str, *, alpha: float = 0.05) -> Scorecard:
        """The scorecard as of now; its intervals are valid at any look.

        Raises: UnknownExperiment.
        """
        path = f"/v1/experiments/{quote(experiment_id, safe='')}/scorecard"

        def get() -> Scorecard:
            try:
                reply = self._http.get(self._experiments_url + path, params={"alpha": alpha})
            except httpx.TransportError as error:
                raise _unreachable(self._experiments_url, error) from None
            if reply.status_code != 200:
                raise error_of_reply(reply.status_code, _json(reply))
            return Scorecard.model_validate_json(reply.content)

        return self._again(get)

    def _post(self, path: str, body: bytes) -> httpx.Response:
        try:
            return self._http.post(self._ingest_url + path, content=body)
        except httpx.TransportError as error:
            raise _unreachable(self._ingest_url, error) from None

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
        def once() -> R:
            try:
                return method(request, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                raise error_of_call(error) from None

        return self._again(once)

    def _again(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, tried again while it is refused for now."""
        for wait in range(ATTEMPTS_MAX - 1):
            try:
                return attempt()
            except RankstreamError as error:
                if not error.retryable:
                    raise
            self._sleep(BACKOFF_S * 2**wait)
        return attempt()


def _method(
    channel: grpc.Channel, name: str, request: type[Q], reply: type[R]
) -> grpc.UnaryUnaryMultiCallable[Q, R]:
    # Not the generated stub: it has no types.
    return channel.unary_unary(
        f"/rankstream.v1.Ranker/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )


def _chunks(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Lines with their index, in groups that fit one request."""
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for index, raw in enumerate(lines):
        line = raw.strip()
        if not line:
            continue
        if len(line) > BYTES_PER_REQUEST:
            raise TooLarge(
                f"too_large: line {index + 1} has {len(line)} bytes (limit {BYTES_PER_REQUEST})."
                " It and what follows was not sent. Shorten or remove the line."
            )
        if chunk and (len(chunk) >= EVENTS_PER_REQUEST or size + len(line) > BYTES_PER_REQUEST):
            yield chunk
            chunk, size = [], 0
        chunk.append((index, line))
        size += len(line) + 1
    if chunk:
        yield chunk


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return {}


def _tells_rejections(reply: httpx.Response) -> bool:
    """Every event of the request was refused, each by name: a result, not an error."""
    return 400 <= reply.status_code < 500 and "rejected" in _json(reply)


def _tells_failed(body: Any) -> bool:
    return bool(body.get("failed"))


def _unreachable(url: str, error: httpx.TransportError) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"dependency_unavailable: {url} cannot be reached: {error}. Try again, or see whether the"
        " service runs."
    )


def _context(given: Mapping[str, Any] | None) -> ranker_pb2.Context:
    return ranker_pb2.Context(**(given or {}))
