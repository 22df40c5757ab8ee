"""One loaded retrieval artefact, and the candidates that it gives.

An artefact is whole: query tower, index and item table were built together and are swapped
together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.adapters.artifacts import folder_of, read_manifest
from rankstream.adapters.cell_index import coverage_of
from rankstream.adapters.cold_vectors import NAME as COLD_FILE
from rankstream.adapters.cold_vectors import ColdVectors, no_vectors, read_cold_vectors
from rankstream.adapters.faiss_index import load_index
from rankstream.adapters.index_file import NAME as INDEX_FILE
from rankstream.adapters.item_table import NAME as ITEMS_FILE
from rankstream.adapters.item_table import ItemTable, read_item_table, rows_of_table
from rankstream.adapters.neighbour_lists import NAME as NEIGHBOURS_FILE
from rankstream.adapters.neighbour_lists import NO_LISTS, NeighbourLists, read_neighbour_lists
from rankstream.adapters.query_tower import TOWER_FILE, QueryTower
from rankstream.candidates.answer import Candidates, candidates_of
from rankstream.candidates.merging import NOTHING, Raw, merge
from rankstream.candidates.origins import NOT_FRESH, Asked, Fresh, Origins, fallback, found_by
from rankstream.candidates.shards import ShardFound, surely_named
from rankstream.contracts.ids import id64
from rankstream.contracts.shard import WHOLE, Shard
from rankstream.contracts.sources import AS_TUNED, Sources
from rankstream.contracts.subset import Subset
from rankstream.errors import InvalidArtifact
from rankstream.ports import Index
from rankstream.retrieval import Found, Rows, rows_of


class Question(NamedTuple):
    """What is asked of a catalog.

    recent: id64 of the last items, newest first, shape (h,), h may be 0.
    excluded: rows that must not come back, -1 is ignored.
    within: rows that may come back; None: all.
    fresh: items that are no rows and may come back too; they have no place in the lists.
    trending: rows clicked lately, most first, as `ranked` makes them.
    near: rows around the user, ascending, and their closeness.
    """

    recent: npt.NDArray[np.uint64]
    k: int
    excluded: npt.NDArray[np.int64]
    within: Subset | None = None
    fresh: Fresh = NOT_FRESH
    sources: Sources = AS_TUNED
    trending: Found = NOTHING
    near: Found = NOTHING


class Catalog:
    """An artefact in memory; nothing in it changes after it was loaded.

    A shard's rows are its own, numbered in the order of the table; tower and keys of neighbour
    lists are of all items.
    """

    def __init__(
        self,
        index_id: str,
        tower: QueryTower,
        index: Index,
        table: ItemTable,
        lists: NeighbourLists = NO_LISTS,
        cold: ColdVectors | None = None,
        part: Rows | None = None,
    ) -> None:
        """`table` is of all items, `index` and `lists` of the rows `part` of them; None: all."""
        self.index_id = index_id
        self._items = len(table.item_id)
        self._order = np.argsort(table.id64).astype(np.int64)
        self._sorted = table.id64[self._order]
        self._part = part
        if part is not None:
            table = rows_of_table(table, part)
        self._item_id = table.item_id
        self.hashes = table.id64
        order = np.argsort(-table.popularity, kind="stable")
        ranked = Found(order, table.popularity[order])
        self._origins = Origins(tower, index, lists, ranked)
        self.cold = no_vectors(index.dimensions) if cold is None else cold

    @classmethod
    def load(cls, uri: str, sha256: str, shard: Shard = WHOLE) -> Catalog:
        """The artefact in a folder, its digests checked, or one shard of its items.

        Raises: InvalidArtifact: half-written, altered, its parts do not belong together, or none of
            its items are the shard's.
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
        size = len(table.item_id)
        part = None if shard.is_whole else shard.rows(table.id64)
        if part is not None and not len(part):
            raise InvalidArtifact(
                f"invalid_artifact: {uri} has {size} items, and shard {shard.number} of {shard.of}"
                " holds none of them. Not used. Use fewer shards."
            )
        index = load_index(folder, size=size, coverage=coverage_of(manifest), part=part)
        tower = QueryTower.load(folder, dimensions=index.dimensions)
        lists = NO_LISTS
        if NEIGHBOURS_FILE in manifest.files:
            lists = read_neighbour_lists(folder, size=size, part=part)
        cold = None
        if COLD_FILE in manifest.files:
            cold = read_cold_vectors(folder, dimensions=index.dimensions)
        return cls(manifest.model_id, tower, index, table, lists, cold, part)

    @property
    def size(self) -> int:
        """Items that are here."""
        return len(self._item_id)

    def rows(self, hashes: npt.NDArray[np.uint64]) -> Rows:
        """Row of each id64, -1 for one that is not here."""
        rows = self._rows_of_all(hashes)
        if self._part is None:
            return rows
        place = np.minimum(np.searchsorted(self._part, rows), len(self._part) - 1)
        return np.where(self._part[place] == rows, place, -1)

    def rows_of_ids(self, item_ids: list[str]) -> Rows:
        """Rows of the ids that are here."""
        rows = self.rows(np.fromiter(map(id64, item_ids), np.uint64, len(item_ids)))
        return rows[rows >= 0]

    def retrieve(self, question: Question) -> Candidates:
        """The k best items for a history, as its sources are configured."""
        origins, asked, degraded = self._asked(question)
        merged = merge(
            [found_by(origins, question.sources, asked)],
            question.sources,
            question.k,
            fresh_from=self.size,
            left=asked.left,
            fallback=lambda name: fallback(origins, name, asked).rows,
        )
        fresh = question.fresh.item_id
        return candidates_of(merged, lambda rows: self._item_ids(rows, fresh), degraded)

    def found(self, question: Question) -> ShardFound:
        """What the sources find among the items that are here, for `shards.joined`."""
        origins, asked, degraded = self._asked(question)
        config, k = question.sources, question.k
        raws, fallbacks = found_by(origins, config, asked), list[Raw]()
        left = sure = surely_named(raws, config, k)
        if sure < k:
            left = asked.left()
        if sure < min(k, left):
            fallbacks = [
                Raw(name, spare, 0.0)
                for name in config.fallbacks
                if len((spare := fallback(origins, name, asked)).rows)
            ]
        named = [raw.found.rows for raw in (*raws, *fallbacks)]
        rows = np.unique(np.concatenate([*named, np.empty(0, np.int64)]))
        return ShardFound(
            self.index_id,
            self._items,
            [self._of_all(raw) for raw in raws],
            [self._of_all(raw) for raw in fallbacks],
            left,
            self._row_of_all(rows),
            self._item_ids(rows, question.fresh.item_id),
            degraded,
        )

    def _asked(self, question: Question) -> tuple[Origins, Asked, tuple[str, ...]]:
        """A question in rows, and what is missing to answer it."""
        recent, k, excluded, within, fresh, _, trending, near = question
        excluded = np.unique(excluded[excluded >= 0])
        history = self._rows_of_all(recent)
        degraded: tuple[str, ...] = ()
        if not (history >= 0).any():
            degraded = ("unknown_history",) if len(recent) else ("no_history",)
        origins = self._origins
        if len(trending.rows) or len(near.rows):
            origins = replace(origins, trending=trending, near=near)
        return origins, Asked(history, k, excluded, within, fresh, self.size), degraded

    def _rows_of_all(self, hashes: npt.NDArray[np.uint64]) -> Rows:
        """Row of each id64 in the table of all items, -1 for an unknown one."""
        return rows_of(self._sorted, self._order, hashes)

    def _item_ids(self, rows: Rows, fresh: list[str]) -> list[str]:
        names, size = self._item_id, self.size
        return [names[row] if row < size else fresh[row - size] for row in rows.tolist()]

    def _of_all(self, raw: Raw) -> Raw:
        return raw._replace(found=raw.found._replace(rows=self._row_of_all(raw.found.rows)))

    def _row_of_all(self, rows: Rows) -> Rows:
        """Rows that are here, new items behind them, as rows of the table of all items."""
        part, size = self._part, self.size
        if part is None:
            return rows
        here = part[np.minimum(rows, size - 1)]
        return np.where(rows < size, here, rows - size + self._items)

    def ranked(self, items: npt.NDArray[np.uint64], score: npt.NDArray[np.float32]) -> Found:
        """Those of items, id64, that are here: largest score first, equal ones by row."""
        rows = self.rows(items)
        order = np.lexsort((rows, -score))
        order = order[rows[order] >= 0]
        return Found(rows[order], score[order])

    def missing(self, before: Catalog) -> tuple[list[str], npt.NDArray[np.uint64]]:
        """Ids and id64 of the items of another catalog that this one lacks."""
        gone = np.flatnonzero(self.rows(before.hashes) < 0)
        return [before._item_id[row] for row in gone.tolist()], before.hashes[gone]
