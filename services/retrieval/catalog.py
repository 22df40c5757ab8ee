"""One loaded retrieval artefact, and the candidates that it gives.

An artefact is whole: query tower, index and item table were built together and are swapped
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.adapters.artifacts import folder_of, read_manifest
from rankstream.adapters.cell_index import coverage_of
from rankstream.adapters.faiss_index import load_index
from rankstream.adapters.index_file import NAME as INDEX_FILE
from rankstream.adapters.item_table import NAME as ITEMS_FILE
from rankstream.adapters.item_table import read_item_table
from rankstream.adapters.neighbour_lists import NAME as NEIGHBOURS_FILE
from rankstream.adapters.neighbour_lists import NO_LISTS, NeighbourLists, read_neighbour_lists
from rankstream.adapters.onnx_model import TOWER_FILE, QueryTower
from rankstream.contracts.ids import id64
from rankstream.contracts.subset import Subset
from rankstream.errors import InvalidArtifact
from rankstream.ports import Index
from rankstream.retrieval import (
    LIST_MIN,
    Blend,
    Found,
    blend_with_neighbours,
    popular,
    rows_of,
)

MERGED: Final = "merged"
TOWERS: Final = "towers"
POPULAR: Final = "popular"


@dataclass(frozen=True)
class Candidates:
    """Best first: item ids, similarity and who named each, all n; what was missing; which led.

    `named_by`: bit i is Catalog.sources[i].
    """

    item_ids: list[str]
    similarity: npt.NDArray[np.float32]
    named_by: npt.NDArray[np.uint32]
    degraded: tuple[str, ...]
    source: str


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
    ) -> None:
        self.index_id = index_id
        self._tower = tower
        self._index = index
        self._item_id = item_id
        self._popular = np.argsort(-popularity, kind="stable")
        self._lists = lists
        self.sources = (TOWERS, *(table.name for table in lists.tables), POPULAR)
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
        return cls(
            manifest.model_id, tower, index, table.item_id, table.id64, table.popularity, lists
        )

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
    ) -> Candidates:
        """The k best items for a history, or the most popular ones if none of it is known.

        Args:
            recent: id64 of the last items, newest first, shape (h,), h may be 0.
            excluded: rows that must not come back, -1 is ignored.
            within: rows that may come back; None: all.
        """
        excluded = np.unique(excluded[excluded >= 0])
        history = self.rows(recent)
        if not (history >= 0).any():
            reason = "no_history" if not len(recent) else "unknown_history"
            top = popular(self._popular, k, excluded, within)
            return self._candidates(self._popular_only(top), (reason,), POPULAR)
        query = self._tower.embed(history)
        near = Found(*self._index.search(query, max(k, LIST_MIN), excluded, within))
        lists = self._lists
        found = blend_with_neighbours(
            near, lists.index_share, lists.tables, history, k, excluded, within
        )
        return self._candidates(found, (), MERGED if lists.tables else TOWERS)

    def _popular_only(self, found: Found) -> Blend:
        bit = np.uint32(1 << (len(self.sources) - 1))
        return Blend(found.rows, found.similarity, np.full(len(found.rows), bit, np.uint32))

    def _candidates(self, found: Blend, degraded: tuple[str, ...], source: str) -> Candidates:
        names = self._item_id
        return Candidates(
            [names[row] for row in found.rows.tolist()],
            found.score,
            found.named_by,
            degraded,
            source,
        )
