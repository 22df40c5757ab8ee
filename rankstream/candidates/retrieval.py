"""Candidates from the artefact that `models` points to.

In:  topics `models` (which artefact) and `items` (what items are like now), both compacted; topic
     `labels` (clicks), if trending items are a source.
Out: replies. Decides nothing: `catalog`, `attributes` and `rankstream.retrieval` decide.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import structlog
from google.protobuf.message import DecodeError

from rankstream import metrics
from rankstream.adapters.behind import loaded_behind
from rankstream.adapters.follow import locate
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.candidates.answer import Candidates, Counters, reply_of
from rankstream.candidates.attributes import Attributes
from rankstream.candidates.catalog import Catalog, Question
from rankstream.candidates.fresh import FreshItems
from rankstream.candidates.item_columns import Facts, ItemColumns, facts_of
from rankstream.candidates.merging import NOTHING
from rankstream.candidates.shards import encode
from rankstream.candidates.trending import Trending
from rankstream.contracts.content import Content, content_of
from rankstream.contracts.filter import GeoRadius, Place, decode_filter, decode_place
from rankstream.contracts.ids import id64
from rankstream.contracts.items import decode_item, deleted_item
from rankstream.contracts.shard import WHOLE, Shard
from rankstream.contracts.sources import AS_TUNED, NEAR, TRENDING, Sources, decode_sources
from rankstream.errors import (
    InvalidArtifact,
    InvalidRequest,
    InvalidSettings,
    NotReady,
    RankstreamError,
)
from rankstream.pb import events_pb2, retrieval_pb2
from rankstream.retrieval import Found

INDEX = "index"
ITEMS = "items"
HOUR_MS: Final = 3_600_000
SHARD: Final = "shard"  # who gave an answer that is one shard's


@dataclass(frozen=True)
class Limits:
    """Where artefacts are, whose alias is served, and what a request may ask for at most."""

    artifacts: str
    alias: str = "champion"
    k_max: int = 2_000
    history_max: int = 1_000
    exclude_max: int = 10_000
    fresh_max: int = 10_000  # new items kept until an index holds them
    sources: Sources = AS_TUNED
    shard: Shard = WHOLE


class _News(NamedTuple):
    """What was learned of an item; its content is read when it is new: that takes as long as all
    else."""

    item_id: str
    content: Callable[[], Content]
    facts: Facts


def _same(content: Content) -> Content:
    return content


def read_sources(path: str, variable: str) -> Sources:
    """The sources that a JSON file configures; without a path, as artefacts were tuned.

    Raises: InvalidSettings: the file cannot be read, or not as sources.
    """
    if not path:
        return AS_TUNED
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InvalidSettings(
            f"invalid_settings: {variable} is {path!r}, which cannot be read: {error.strerror}."
            " Not started. Name a JSON file, or none."
        ) from None
    return decode_sources(text, path)


class Retrieval:
    """The catalog in force and what is known of its items."""

    def __init__(
        self,
        limits: Limits,
        *,
        load: Callable[[str, str, Shard], Catalog],
        health: Health,
        metrics_of: Metrics,
    ) -> None:
        self._limits = limits
        self._load = load
        self._health = health
        self._catalog: Catalog | None = None
        self._sha256 = ""
        self._columns = ItemColumns()
        self._attributes: Attributes | None = None  # of the catalog's rows
        self._fresh: FreshItems | None = None  # that the catalog lacks
        # Learned while attributes of another catalog are being made.
        self._meanwhile: list[_News] | None = None
        config = limits.sources
        self.trending: Trending | None = None
        if config.asks(TRENDING):
            window_ms = round(config.trending_hours * HOUR_MS)
            self.trending = Trending(window_ms=window_ms, shard=limits.shard)
        self._trending = NOTHING  # rows of the catalog
        self._sources = config.model_dump_json(exclude_defaults=True).encode()
        self.indexed = asyncio.Event()  # there is a catalog; it knows the names of its items
        self._requests = metrics_of.counter(metrics.RETRIEVAL_REQUESTS)
        self._seconds = metrics_of.histogram(metrics.RETRIEVAL_SECONDS)
        self._degraded = metrics_of.counter(metrics.RETRIEVAL_DEGRADED)
        self._counters = Counters(metrics_of)
        self._items = metrics_of.gauge(metrics.RETRIEVAL_ITEMS)
        self._info = metrics_of.gauge(metrics.MODEL_INFO)

    async def follow_model(self, record: Record) -> None:
        """Load what the alias points to and swap it in; what was served stays if it is refused.

        Raises: InvalidArtifact.
        """
        if record.key != f"retrieval/{self._limits.alias}".encode() or record.value is None:
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
        uri = locate(pointer.uri, self._limits.artifacts)
        catalog = await loaded_behind(self._load, uri, pointer.sha256, self._limits.shard)
        self._meanwhile, known = [], self._columns.frozen()
        attributes, lost = await loaded_behind(self._described, catalog, known)
        self._swap(catalog, attributes, lost, pointer.sha256)
        # A catalog stays: the collector need not stop answers to look at it.
        gc.freeze()

    def _described(
        self, catalog: Catalog, known: tuple[Facts, Facts]
    ) -> tuple[Attributes, list[_News]]:
        """What is known of a catalog's items, and those of the one in force that it lacks.

        Text is kept of new items only, so these have a category alone until their next update.
        """
        attributes = Attributes(facts_of(known, catalog.hashes), self._columns.category)
        if self._catalog is None:
            return attributes, []
        names, hashes = catalog.missing(self._catalog)
        facts = facts_of(known, hashes)
        # Of which nothing was ever told, the new catalog knows better.
        told = np.flatnonzero(facts["item"] != 0).tolist()
        category = [self._columns.name(number) for number in facts["category"].tolist()]
        return attributes, [
            _News(names[at], partial(Content, category[at]), facts[at : at + 1]) for at in told
        ]

    def _swap(
        self,
        catalog: Catalog,
        attributes: Attributes,
        lost: list[_News],
        sha256: str,
    ) -> None:
        # One assignment after another without an await: no request sees half of it.
        before = [] if self._fresh is None else self._fresh.all()
        kept = [
            _News(item_id, partial(_same, content), facts) for item_id, content, facts in before
        ]
        served = self._catalog
        self._catalog, self._attributes, self._sha256 = catalog, attributes, sha256
        self._fresh = FreshItems(catalog.cold, limit=self._limits.fresh_max)
        for news in (*lost, *kept, *(self._meanwhile or ())):
            self._apply(news)
        self._meanwhile = None
        self.rank_trending()
        self._items.labels("indexed").set(catalog.size)
        self._items.labels("withdrawn").set(attributes.withdrawn)
        self._count_fresh(self._fresh)
        if served is not None:
            self._info.remove("retrieval", self._limits.alias, served.index_id)
        self._info.labels("retrieval", self._limits.alias, catalog.index_id).set(1)
        self.indexed.set()
        self._health.ready(INDEX)
        structlog.get_logger().info("index_loaded", index_id=catalog.index_id, items=catalog.size)

    async def follow_label(self, record: Record) -> None:
        """Count the clicks of a record of `labels`; `rank_trending` makes candidates of them.

        Raises: InvalidBatch.
        """
        if self.trending is not None:
            self.trending.fold(record)

    def rank_trending(self) -> None:
        """Have requests see the clicks that were counted up to now."""
        if self.trending is not None and self._catalog is not None:
            self._trending = self._catalog.ranked(*self.trending.clicked())
            self._items.labels("trending").set(len(self._trending.rows))

    async def follow_item(self, record: Record) -> None:
        """Take over what an item is like now, unless something newer is known of it, or it is
        another shard's.

        A tombstone withdraws the item as of the time of its record. Items of which nothing else is
        known are kept by name once there is a catalog: follow them from then on.
        Raises: InvalidEvent: the record is no Item, or one that breaks the contract.
        """
        at_ms = record.timestamp_ms
        value = deleted_item(record.key, at_ms) if record.value is None else record.value
        item = decode_item(value, append_time_ms=at_ms)
        if not self._limits.shard.holds(id64(item.item_id)):
            return
        facts = self._columns.learn(item)
        if facts is not None:
            news = _News(item.item_id, partial(content_of, item), facts)
            if self._meanwhile is not None:
                self._meanwhile.append(news)
            self._apply(news)

    def _apply(self, news: _News) -> None:
        item_id, content, facts = news
        if self._catalog is None or self._attributes is None or self._fresh is None:
            return
        (row,) = self._catalog.rows(facts["item"]).tolist()
        if row >= 0:
            self._attributes.change(row, facts)
            self._items.labels("withdrawn").set(self._attributes.withdrawn)
            return
        if facts["withdrawn"][0]:
            self._fresh.drop(int(facts["item"][0]))
        elif not self._fresh.put(item_id, content(), facts):
            self._degraded.labels("fresh_full").inc()
        self._count_fresh(self._fresh)

    def _count_fresh(self, fresh: FreshItems) -> None:
        self._items.labels("fresh").set(len(fresh))
        self._items.labels("fresh_by_content").set(fresh.by_content)

    async def retrieve(self, request: retrieval_pb2.RetrieveRequest) -> retrieval_pb2.RetrieveReply:
        """Candidates for a history. Raises: as `candidates`."""
        return reply_of(*self.candidates(request))

    def candidates(self, request: retrieval_pb2.RetrieveRequest) -> tuple[Candidates, str]:
        """Candidates for a history, and the index that they are of.

        Raises: InvalidRequest: k, history, exclusions or filter are outside their limits, or this
            is one of several shards. NotReady: no artefact is loaded yet.
        """
        start = time.perf_counter()
        shard = self._limits.shard
        try:
            if not shard.is_whole:
                raise InvalidRequest(
                    f"invalid_request: this is shard {shard.number} of {shard.of}, which has only"
                    " its own items. Nothing was retrieved. Ask all shards for RetrieveShard."
                )
            catalog, question = self._question(request)
        except RankstreamError as error:
            self.refused(error)
            raise
        candidates = catalog.retrieve(question)
        self._counters.count(candidates)
        self._answered(candidates.degraded, candidates.source, start)
        return candidates, catalog.index_id

    async def retrieve_shard(
        self, request: retrieval_pb2.RetrieveRequest
    ) -> retrieval_pb2.ShardReply:
        """What each source finds among the items that are here, for whoever merges all shards.

        Raises: as `retrieve`, of shards as of one process that has all items.
        """
        start = time.perf_counter()
        try:
            catalog, question = self._question(request)
        except RankstreamError as error:
            self.refused(error)
            raise
        found = catalog.found(question)
        self._answered(found.degraded, SHARD, start)
        return encode(found, self._limits.shard, self._sources)

    def _question(self, request: retrieval_pb2.RetrieveRequest) -> tuple[Catalog, Question]:
        self._check(request)
        wanted = decode_filter(request.filter) if request.HasField("filter") else None
        place = decode_place(request.place) if request.HasField("place") else None
        catalog, attributes, fresh = self._catalog, self._attributes, self._fresh
        if catalog is None or attributes is None or fresh is None:
            raise NotReady(
                f"not_ready: no index behind retrieval/{self._limits.alias} yet."
                " Nothing was retrieved. Publish one, or try again soon."
            )
        denied = request.exclude_item_ids
        excluded = np.concatenate(
            [
                np.array(request.exclude_items, np.uint64),
                np.fromiter(map(id64, denied), np.uint64, len(denied)),
            ]
        )
        return catalog, Question(
            np.array(request.recent_items, np.uint64),
            request.k,
            catalog.rows(excluded),
            attributes.subset(wanted, catalog.rows_of_ids),
            fresh.passing(wanted, self._columns.category, excluded),
            self._limits.sources,
            self._trending,
            self._near(place, attributes),
        )

    def _answered(self, degraded: tuple[str, ...], source: str, start: float) -> None:
        self._requests.labels("ok").inc()
        for reason in degraded:
            self._degraded.labels(reason).inc()
        self._seconds.labels(source).observe(time.perf_counter() - start)

    def _near(self, place: Place | None, attributes: Attributes) -> Found:
        """What is around the user, if that is known and asked for."""
        config = self._limits.sources
        if place is None or not config.asks(NEAR):
            return NOTHING
        return Found(*attributes.near(GeoRadius(**place.model_dump(), radius_km=config.near_km)))

    def _check(self, request: retrieval_pb2.RetrieveRequest) -> None:
        limits = self._limits
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

    def refused(self, error: RankstreamError) -> None:
        """Count a request that could not be answered."""
        self._requests.labels(error.code).inc()
