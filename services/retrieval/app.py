"""Candidates over gRPC, from the artefact that `models` points to.

In:  topics `models` (which artefact) and `items` (which items are withdrawn), both compacted.
Out: replies. Decides nothing: `catalog` and `rankstream.retrieval` decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import grpc
import numpy as np
import numpy.typing as npt
import structlog
from google.protobuf.message import DecodeError

from rankstream import metrics
from rankstream.adapters.follow import locate
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import unary
from rankstream.contracts.ids import id64
from rankstream.contracts.items import decode_item, deleted_item
from rankstream.errors import (
    InvalidArtifact,
    InvalidRequest,
    NotReady,
    RankstreamError,
)
from rankstream.pb import events_pb2, retrieval_pb2
from services.retrieval.catalog import Catalog
from services.retrieval.item_times import ItemTimes
from services.retrieval.settings import RetrievalSettings

SERVICE = "rankstream.v1.Retrieval"
INDEX = "index"
ITEMS = "items"


class Retrieval:
    """The catalog in force and the items withdrawn from it."""

    def __init__(
        self,
        settings: RetrievalSettings,
        *,
        load: Callable[[str, str], Catalog],
        health: Health,
        metrics_of: Metrics,
    ) -> None:
        self._settings = settings
        self._load = load
        self._health = health
        self._catalog: Catalog | None = None
        self._sha256 = ""
        self._item_times = ItemTimes()
        self._withdrawn: set[int] = set()
        self._withdrawn_rows: npt.NDArray[np.int64] | None = None  # None: to be looked up again
        self._requests = metrics_of.counter(metrics.RETRIEVAL_REQUESTS)
        self._seconds = metrics_of.histogram(metrics.RETRIEVAL_SECONDS)
        self._degraded = metrics_of.counter(metrics.RETRIEVAL_DEGRADED)
        self._named = metrics_of.counter(metrics.RETRIEVAL_CANDIDATES)
        self._items = metrics_of.gauge(metrics.RETRIEVAL_ITEMS)
        self._info = metrics_of.gauge(metrics.MODEL_INFO)

    async def follow_model(self, record: Record) -> None:
        """Load what the alias points to and swap it in; what was served stays if it is refused.

        Raises: InvalidArtifact.
        """
        if record.key != f"retrieval/{self._settings.alias}".encode() or record.value is None:
            return
        try:
            pointer = events_pb2.ModelPointer.FromString(record.value)
        except DecodeError as error:
            raise InvalidArtifact(
                f"invalid_artifact: {len(record.value)} bytes at {record.topic}"
                f" {record.offset} are not a ModelPointer: {error}. Skipped. Publish it again."
            ) from None
        if pointer.sha256 == self._sha256:
            return
        catalog = await asyncio.to_thread(
            self._load, locate(pointer.uri, self._settings.artifacts), pointer.sha256
        )
        self._swap(catalog, pointer.sha256)

    def _swap(self, catalog: Catalog, sha256: str) -> None:
        # One assignment after another without an await: no request sees half of it.
        self._catalog, self._sha256 = catalog, sha256
        self._withdrawn_rows = None
        self._info.clear()
        self._info.labels("retrieval", self._settings.alias, catalog.index_id).set(1)
        self._health.ready(INDEX)
        structlog.get_logger().info("index_loaded", index_id=catalog.index_id, items=catalog.size)

    async def follow_item(self, record: Record) -> None:
        """Withdraw an item, or take it back in, unless something newer is known of it.

        A tombstone withdraws the item as of the time of its record.
        Raises: InvalidEvent: the record is no Item, or one that breaks the contract.
        """
        at_ms = record.timestamp_ms
        value = deleted_item(record.key, at_ms) if record.value is None else record.value
        item = decode_item(value, append_time_ms=at_ms)
        key, withdrawn = id64(item.item_id), item.withdrawn
        if not self._item_times.advance(key, item.updated_ms):
            return
        if withdrawn == (key in self._withdrawn):
            return
        (self._withdrawn.add if withdrawn else self._withdrawn.discard)(key)
        self._withdrawn_rows = None

    def _withdrawn_from(self, catalog: Catalog) -> npt.NDArray[np.int64]:
        if self._withdrawn_rows is None:
            rows = catalog.rows(np.fromiter(self._withdrawn, np.uint64, len(self._withdrawn)))
            self._withdrawn_rows = rows[rows >= 0]
            self._items.labels("indexed").set(catalog.size)
            self._items.labels("withdrawn").set(len(self._withdrawn_rows))
        return self._withdrawn_rows

    def methods(self) -> Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """gRPC method handlers by name."""
        return {
            "Retrieve": unary(
                retrieval_pb2.RetrieveRequest, self.retrieve, on_malformed=self._refused
            )
        }

    async def retrieve(self, request: retrieval_pb2.RetrieveRequest) -> retrieval_pb2.RetrieveReply:
        """Candidates for a history.

        Raises: InvalidRequest: k, history or exclusions are outside their limits.
            NotReady: no artefact is loaded yet.
        """
        start = time.perf_counter()
        try:
            self._check(request)
            catalog = self._catalog
            if catalog is None:
                raise NotReady(
                    f"not_ready: no index behind retrieval/{self._settings.alias} yet."
                    " Nothing was retrieved. Publish one, or try again soon."
                )
        except RankstreamError as error:
            self._refused(error)
            raise
        candidates = catalog.retrieve(
            np.array(request.recent_items, np.uint64), request.k, self._excluded(catalog, request)
        )
        for reason in candidates.degraded:
            self._degraded.labels(reason).inc()
        for bit, name in enumerate(catalog.sources):
            self._named.labels(name).inc(int(np.count_nonzero(candidates.named_by >> bit & 1)))
        self._requests.labels("ok").inc()
        self._seconds.labels(candidates.source).observe(time.perf_counter() - start)
        return retrieval_pb2.RetrieveReply(
            item_id=candidates.item_ids,
            similarity=candidates.similarity.tolist(),
            index_id=catalog.index_id,
            degraded=candidates.degraded,
            source=candidates.source,
            source_name=catalog.sources,
            named_by=candidates.named_by.tolist(),
        )

    def _excluded(
        self, catalog: Catalog, request: retrieval_pb2.RetrieveRequest
    ) -> npt.NDArray[np.int64]:
        return np.concatenate(
            [
                self._withdrawn_from(catalog),
                catalog.rows(np.array(request.exclude_items, np.uint64)),
                catalog.rows_of_ids(list(request.exclude_item_ids)),
            ]
        )

    def _check(self, request: retrieval_pb2.RetrieveRequest) -> None:
        limits = self._settings
        excluded = len(request.exclude_item_ids) + len(request.exclude_items)
        for name, value, low, high in (
            ("k", request.k, 1, limits.k_max),
            ("recent_items", len(request.recent_items), 0, limits.history_max),
            ("exclusions", excluded, 0, limits.exclude_max),
        ):
            if not low <= value <= high:
                raise InvalidRequest(
                    f"invalid_request: {name} is {value} (limit {low}..{high})."
                    " Nothing was retrieved. Ask for less."
                )

    def _refused(self, error: RankstreamError) -> None:
        self._requests.labels(error.code).inc()
