"""The rankers behind the aliases of topic `models`, and what they need of the champion index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
from google.protobuf.message import DecodeError

from rankstream import metrics
from rankstream.adapters.artifacts import folder_of, read_manifest
from rankstream.adapters.behind import loaded_behind
from rankstream.adapters.follow import locate
from rankstream.adapters.item_table import read_item_table
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rating_table_file import NAME as RATINGS_FILE
from rankstream.adapters.rating_table_file import read_rating_table
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidArtifact, NotReady, SpecMismatch, UnknownAnswer
from rankstream.features import spec
from rankstream.features.rating_table import NO_RATINGS, RatingTable
from rankstream.pb.events_pb2 import Interleaving, ModelPointer, ServedSlate
from rankstream.ports import Model, Scores
from rankstream.ranking.scoring import check_finite, expected_utility
from services.ranker.enrichment import Enriched

Floats = npt.NDArray[np.float32]

CHAMPION: Final = "champion"
POPULAR_MAX: Final = 2_000


@dataclass(frozen=True)
class PopularItems:
    """Most popular first: what to rank when retrieval does not answer."""

    index_id: str
    item_ids: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]

    @classmethod
    def load(cls, uri: str, sha256: str) -> PopularItems:
        """Raises: InvalidArtifact."""
        manifest = read_manifest(uri, sha256)
        table = read_item_table(folder_of(uri))
        rows = np.argsort(-table.popularity, kind="stable")[:POPULAR_MAX]
        return cls(
            manifest.model_id, tuple(table.item_id[row] for row in rows.tolist()), table.id64[rows]
        )

    def without(self, hashes: npt.NDArray[np.uint64], item_ids: list[str], k: int) -> list[str]:
        """The first k that are in neither list."""
        named = np.fromiter(map(id64, item_ids), np.uint64, len(item_ids))
        keep = ~np.isin(self.hashes, np.concatenate([hashes, named]))
        return [self.item_ids[row] for row in np.flatnonzero(keep)[:k].tolist()]


def load_ratings(uri: str) -> RatingTable:
    """The rating table of an index; that of one without is of no items. Raises: InvalidArtifact."""
    manifest = read_manifest(uri)
    if RATINGS_FILE not in manifest.files:
        return NO_RATINGS
    return read_rating_table(folder_of(uri), table_id=manifest.model_id)


def preference(model: Model, scores: Scores, features: Floats) -> Floats:
    """What candidates are ordered by, shape (n,): their logit, or the utility of the manifest."""
    weights = model.utility
    if weights is None or scores.pcvr is None:
        return scores.logit
    value = np.zeros(1, np.float32)
    if weights.value:
        value = features[:, spec.NAMES.index(weights.value)]
    return expected_utility(weights, scores.pctr, scores.pcvr, value)


def scored(model: Model, enriched: Enriched) -> tuple[Scores, Floats]:
    """Scores of candidates, and what the model orders them by, shape (m,).

    Raises: DependencyUnavailable if any of them is not a finite number.
    """
    scores = Scores(*np.empty((3, 0), np.float32))
    if enriched.item_ids:
        scores = model.score(enriched.features)
    preferred = preference(model, scores, enriched.features)
    check_finite(scores.logit, model.model_id)
    check_finite(preferred, model.model_id)
    return scores, preferred


class Models:
    """Every alias of role ranker, loaded; replaced whole when its pointer moves."""

    def __init__(
        self,
        *,
        load: Callable[[str, str], Model],
        load_popular: Callable[[str, str], PopularItems],
        load_ratings: Callable[[str], RatingTable],
        artifacts: str,
        kept: int,
        metrics_of: Metrics,
        on_champion: Callable[[], None],
    ) -> None:
        self._load = load
        self._load_popular = load_popular
        self._load_ratings = load_ratings
        self._artifacts = artifacts
        self._kept = kept
        self._on_champion = on_champion
        self._aliases: dict[str, Model] = {}
        self._by_id: dict[str, Model] = {}  # oldest first; explains answers of earlier models
        self._sha256: dict[bytes, str] = {}
        self._version: dict[str, str] = {}  # model id -> sha256 of its manifest
        self._info = metrics_of.gauge(metrics.MODEL_INFO)
        self._shown: list[tuple[str, str]] = []  # aliases and models that the gauge has
        self._rated_items = metrics_of.gauge(metrics.RANKER_RATED_ITEMS)
        self.popular: PopularItems | None = None
        self.ratings = NO_RATINGS

    async def follow(self, record: Record) -> None:
        """Load what a pointer names; what the alias served before stays if it is refused.

        Raises: InvalidArtifact, SpecMismatch.
        """
        role, _, alias = record.key.decode(errors="replace").partition("/")
        if record.value is None:
            # An alias that is gone serves no variant any more, but never leaves us without a model.
            if role == "ranker" and alias != CHAMPION and alias in self._aliases:
                del self._aliases[alias]
                self._sha256.pop(record.key, None)
                self._export()
            return
        try:
            pointer = ModelPointer.FromString(record.value)
        except DecodeError as error:
            raise InvalidArtifact(
                f"invalid_artifact: {len(record.value)} bytes at {record.topic} {record.offset}"
                f" are not a ModelPointer: {error}. Skipped. Publish it again."
            ) from None
        if self._sha256.get(record.key) == pointer.sha256:
            return
        uri = locate(pointer.uri, self._artifacts)
        if role == "ranker":
            model = await loaded_behind(self._load, uri, pointer.sha256)
            self._version[model.model_id] = pointer.sha256
            self._swap(alias, model)
        elif role == "retrieval" and alias == CHAMPION:
            popular = await loaded_behind(self._load_popular, uri, pointer.sha256)
            self.ratings = await loaded_behind(self._load_ratings, uri)
            self.popular = popular
            self._rated_items.set(len(self.ratings))
        self._sha256[record.key] = pointer.sha256

    def _swap(self, alias: str, model: Model) -> None:
        self._aliases[alias] = model
        self._by_id.pop(model.model_id, None)
        self._by_id[model.model_id] = model
        in_use = {served.model_id for served in self._aliases.values()}
        spare = [model_id for model_id in self._by_id if model_id not in in_use]
        for model_id in spare[: max(0, len(self._by_id) - self._kept)]:
            del self._by_id[model_id]
            self._version.pop(model_id, None)
        self._export()
        structlog.get_logger().info("model_loaded", alias=alias, model_id=model.model_id)
        if alias == CHAMPION:
            self._on_champion()

    def _export(self) -> None:
        for shown in self._shown:
            self._info.remove("ranker", *shown)
        self._shown = [(alias, model.model_id) for alias, model in self._aliases.items()]
        for alias, model in self._aliases.items():
            self._info.labels("ranker", alias, model.model_id).set(1)

    def champion(self) -> Model:
        """Raises: NotReady before the first one is loaded."""
        model = self._aliases.get(CHAMPION)
        if model is None:
            raise NotReady(
                "not_ready: no model behind ranker/champion yet. Nothing was ranked."
                " Publish one, or try again soon."
            )
        return model

    def version(self, model_id: str) -> str:
        """SHA-256 of the manifest of a loaded model."""
        return self._version[model_id]

    def sign(self, slate: ServedSlate, between: Interleaving | None) -> None:
        """Write into a slate which versions of models scored it, and what data trained the first.

        between: of an interleaved slate; it becomes a part of the slate.
        """
        slate.model_sha256 = self._version[slate.model_id]
        slate.data_version = self._by_id[slate.model_id].data_version
        if slate.HasField("prerank"):
            slate.prerank.model_sha256 = self._version[slate.prerank.model_id]
        if between is not None:
            between.model_sha256 = self._version[between.model_id]
            slate.interleaving.CopyFrom(between)

    def of_alias(self, alias: str) -> Model | None:
        """The model of a variant's alias, None if none is loaded."""
        return self._aliases.get(alias)

    async def past(self, model_id: str, sha256: str) -> Model:
        """A model that answered before: loaded, or loaded again from the folder of artefacts.

        Raises: UnknownAnswer if there is none any more, or not this version of it.
        """
        model = self._by_id.get(model_id)
        if model is not None and sha256 in ("", self._version[model_id]):
            return model
        uri = locate(f"ranker/{model_id}", self._artifacts)
        try:
            return await loaded_behind(self._load, uri, sha256)
        except (InvalidArtifact, SpecMismatch) as error:
            raise UnknownAnswer(
                f"unknown_answer: its model {model_id} is not loaded any more (loaded:"
                f" {', '.join(self._by_id) or 'none'}), and {error}"
                " Keep its folder, or raise RANKER_MODELS_KEPT."
            ) from None
