"""Artefacts of retrieval: whatever their index, the same history gets the same candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.train.artefact import Origin, write_retrieval
from pipelines.train.retrieval import ItemVectors, mean_towers, queries_of
from rankstream.adapters.artifacts import read_manifest
from rankstream.adapters.cold_vectors import ColdVectors
from rankstream.candidates.catalog import Catalog, Question
from rankstream.contracts.content import Content
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.features.rating_table import NO_RATINGS

M = 400
RNG = np.random.default_rng(4)
NAMES = tuple(f"item-{n}" for n in range(M))
VECTORS = RNG.normal(size=(M, 8)).astype(np.float32)
ROWS = np.stack([RNG.permutation(M)[:5] for _ in range(M)]).astype(np.int32)
LISTS = Neighbours("company", ROWS, np.ones(ROWS.shape, np.float32), last=5, fading=0.9, share=1.0)
TOWERS = mean_towers(ItemVectors(NAMES, VECTORS, RNG.random(M).astype(np.float32)))


def _catalog(root: Path, exact_max: int) -> Catalog:
    artifact = write_retrieval(
        root,
        TOWERS,
        (LISTS,),
        NO_RATINGS,
        Origin(1, "data", 1, 2),
        queries=queries_of(TOWERS, [np.array([row, row + 1]) for row in range(50)]),
        cold=ColdVectors({"tea": VECTORS[0]}, VECTORS[1]),
        metrics={},
        parity=0.0,
        seed=1,
        exact_max=exact_max,
    )
    manifest = read_manifest(artifact.uri)
    assert manifest.metrics["index_recall_500"] >= 0.96
    assert (
        ("cells.npz" in manifest.files)
        == (exact_max < M)
        == ("index_coverage" in manifest.parameters)
    )
    return Catalog.load(artifact.uri, artifact.sha256)


def test_cells_and_exact_search_retrieve_the_same_items(tmp_path: Path) -> None:
    exact, cells = _catalog(tmp_path / "exact", M), _catalog(tmp_path / "cells", M - 1)
    none = np.empty(0, np.int64)

    for row in range(0, M, 40):
        history = np.array([id64(NAMES[row]), id64("unknown"), id64(NAMES[row - 1])], np.uint64)
        question = Question(history, 30, none)
        expected, found = exact.retrieve(question), cells.retrieve(question)

        assert len(set(expected.item_ids) & set(found.item_ids)) >= 28
        score = dict(zip(found.item_ids, found.similarity.tolist(), strict=True))
        for item_id, similarity in zip(expected.item_ids, expected.similarity, strict=True):
            assert abs(score.get(item_id, similarity) - similarity) < 0.02
    unknown = np.array([id64("nobody")], np.uint64)
    question = Question(unknown, 30, none)
    assert cells.retrieve(question).item_ids == exact.retrieve(question).item_ids


def test_vectors_of_new_items_are_beside_the_index(tmp_path: Path) -> None:
    written = _catalog(tmp_path, M).cold

    assert written.of(Content("tea"))[0].tolist() == VECTORS[0].tolist()
    assert written.rest.tolist() == VECTORS[1].tolist()
