"""One loaded retrieval artefact, and the candidates that it gives.

An artefact is whole: query tower, index and item table were built together and are swapped
together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.adapters.artifacts import folder_of, read_manifest
from rankstream.adapters.cell_index import coverage_of
from rankstream.adapters.cold_vectors import NAME as COLD_FILE
from rankstream.adapters.cold_vectors import ColdVectors, no_vectors, read_cold_vectors
from rankstream.adapters.faiss_index import load_index
from rankstream.adapters.index_file import NAME as INDEX_FILE
from rankstream.adapters.item_table import NAME as ITEMS_FILE
from rankstream.adapters.item_table import read_item_table
from rankstream.adapters.neighbour_lists import NAME as NEIGHBOURS_FILE
from rankstream.adapters.neighbour_lists import NO_LISTS, NeighbourLists, read_neighbour_lists
from rankstream.adapters.query_tower import TOWER_FILE, QueryTower
from rankstream.candidates.merging import NOT_FRESH, NOTHING, Asked, Fresh, Origins, merge
from rankstream.contracts.ids import id64
from rankstream.contracts.sources import AS_TUNED, FRESH, Name, Sources
from rankstream.contracts.subset import Subset
from rankstream.errors import InvalidArtifact
from rankstream.ports import Index
from rankstream.retrieval import Found, rows_of

MERGED: Final = "merged"
NOBODY: Final = "none"


@dataclass(frozen=True)
class Candidates:
    """Best first: item ids, similarity and who named each, all n; what was missing; who gave them.

    `named_by`: bits of contracts.sources. `dropped`: sources under their floor. `filled`: how many
    each fallback gave. `source`: "merged", or the name of the only one.
    """

    item_ids: list[str]
    similarity: npt.NDArray[np.float32]
    named_by: npt.NDArray[np.uint32]
    degraded: tuple[str, ...]
    source: str
    dropped: list[Name]
    filled: dict[Name, int]


class Catalog:
    """An artefact in memory; nothing in it changes after it was loaded."""

    def __init__(
        self,
        index_id: str,
        tower: QueryTower,
        index: Index,
        item_id: tuple[str, ...],
        hashes: npt.NDArray[np.uint64],
        popularity: npt.NDArray[np.float32],
        lists: NeighbourLists = NO_LISTS,
        cold: ColdVectors | None = None,
    ) -> None:
        self.index_id = index_id
        self._item_id = item_id
        order = np.argsort(-popularity, kind="stable")
        self._origins = Origins(tower, index, lists, Found(order, popularity[order]))
        self.cold = no_vectors(index.dimensions) if cold is None else cold
        self.hashes = hashes
        self._order = np.argsort(hashes).astype(np.int64)
        self._sorted = hashes[self._order]

    @classmethod
    def load(cls, uri: str, sha256: str) -> Catalog:
        """The artefact in a folder, its digests checked.

        Raises: InvalidArtifact: half-written, altered, or its parts do not belong together.
        """
        manifest = read_manifest(uri, sha256)
        missing = {TOWER_FILE, INDEX_FILE, ITEMS_FILE} - manifest.files.keys()
        if manifest.role != "retrieval" or missing:
            raise InvalidArtifact(
                f"invalid_artifact: {uri} is a {manifest.role} that lacks {sorted(missing)}."
                " Not used. Publish a retrieval artefact."
            )
        folder = folder_of(uri)
        table = read_item_table(folder)
        index = load_index(folder, size=len(table.item_id), coverage=coverage_of(manifest))
        tower = QueryTower.load(folder, dimensions=index.dimensions)
        lists = NO_LISTS
        if NEIGHBOURS_FILE in manifest.files:
            lists = read_neighbour_lists(folder, size=len(table.item_id))
        cold = None
        if COLD_FILE in manifest.files:
            cold = read_cold_vectors(folder, dimensions=index.dimensions)
        columns = table.item_id, table.id64, table.popularity
        return cls(manifest.model_id, tower, index, *columns, lists, cold)

    @property
    def size(self) -> int:
        """Items of the index."""
        return len(self._item_id)

    def rows(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Row of each id64, -1 for an unknown one."""
        return rows_of(self._sorted, self._order, hashes)

    def rows_of_ids(self, item_ids: list[str]) -> npt.NDArray[np.int64]:
        """Rows of the ids that are in the table."""
        rows = self.rows(np.fromiter(map(id64, item_ids), np.uint64, len(item_ids)))
        return rows[rows >= 0]

    def retrieve(
        self,
        recent: npt.NDArray[np.uint64],
        k: int,
        excluded: npt.NDArray[np.int64],
        within: Subset | None = None,
        fresh: Fresh = NOT_FRESH,
        sources: Sources = AS_TUNED,
        trending: Found = NOTHING,
        near: Found = NOTHING,
    ) -> Candidates:
        """The k best items for a history, as its sources are configured.

        Args:
            recent: id64 of the last items, newest first, shape (h,), h may be 0.
            excluded: rows that must not come back, -1 is ignored.
            within: rows that may come back; None: all.
            fresh: items that are no rows and may come back too; they have no place in the lists.
            trending: rows clicked lately, most first, as `ranked` makes them.
            near: rows around the user and their closeness.
        """
        excluded = np.unique(excluded[excluded >= 0])
        history = self.rows(recent)
        origins = self._origins
        if len(trending.rows) or len(near.rows):
            origins = replace(origins, trending=trending, near=near)
        merged = merge(origins, sources, Asked(history, k, excluded, within, fresh, self.size))
        degraded: tuple[str, ...] = ()
        if not (history >= 0).any():
            degraded = ("unknown_history",) if len(recent) else ("no_history",)
        # Fresh items are mostly the towers' as well.
        gave = [name for name in merged.sources if name != FRESH] or merged.sources
        led = MERGED if len(gave) > 1 else next(iter([*gave, *merged.filled]), NOBODY)
        names, size, found = self._item_id, self.size, merged.blend
        return Candidates(
            [
                names[row] if row < size else fresh.item_id[row - size]
                for row in found.rows.tolist()
            ],
            found.score,
            found.named_by,
            degraded,
            led,
            merged.dropped,
            merged.filled,
        )

    def ranked(self, items: npt.NDArray[np.uint64], score: npt.NDArray[np.float32]) -> Found:
        """The rows of a ranking of id64, without those that have none."""
        rows = self.rows(items)
        there = rows >= 0
        return Found(rows[there], score[there])

    def missing(self, before: Catalog) -> tuple[list[str], npt.NDArray[np.uint64]]:
        """Ids and id64 of the items of another catalog that this one lacks."""
        gone = np.flatnonzero(self.rows(before.hashes) < 0)
        return [before._item_id[row] for row in gone.tolist()], before.hashes[gone]
