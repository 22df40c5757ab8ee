"""From a fitted model to an artefact: parity first, then one folder, written whole."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Latency
from pipelines.features.replay import TrainingRows
from pipelines.train.graphs import renumbered_graph
from pipelines.train.index import DEPTH, EXACT_MAX, BuiltIndex, build_index
from pipelines.train.precision import REQUEST_ROWS, Precision, Variant, session_of
from pipelines.train.preranking import fit_prerank
from pipelines.train.rankers import Ranker
from pipelines.train.retrieval import Towers
from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.adapters.cell_choice import NAME as CELLS_FILE
from rankstream.adapters.cell_index import COVERAGE
from rankstream.adapters.cold_vectors import NAME as COLD_FILE
from rankstream.adapters.cold_vectors import ColdVectors, write_cold_vectors
from rankstream.adapters.forest import SUMS, split
from rankstream.adapters.index_file import NAME as INDEX_FILE
from rankstream.adapters.item_table import NAME as ITEMS_FILE
from rankstream.adapters.neighbour_lists import NAME as NEIGHBOURS_FILE
from rankstream.adapters.neighbour_lists import NeighbourLists, write_neighbour_lists
from rankstream.adapters.onnx_model import RANKER_FILE
from rankstream.adapters.query_tower import TOWER_FILE
from rankstream.adapters.rating_table_file import NAME as RATINGS_FILE
from rankstream.adapters.rating_table_file import write_rating_table
from rankstream.contracts.ids import id64
from rankstream.contracts.manifest import Utility
from rankstream.contracts.neighbours import Neighbours, in_order
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from rankstream.features.rating_table import RatingTable
from rankstream.monitoring.histogram import encode_histogram, reference_histogram

Floats = npt.NDArray[np.float32]

PARITY_ROWS: Final = 10_000
PARITY_MAX_ABS: Final = 1e-4
HISTORY_FOR_PARITY: Final = 80
LATENCY_REQUESTS: Final = 200
NOT_NARROWED: Final[Mapping[Precision, Variant]] = {}


@dataclass(frozen=True)
class Origin:
    """What a model was made from, and when."""

    created_ms: int
    data_version: str
    train_from_ms: int
    train_until_ms: int

    def model_id(self, family: str) -> str:
        """Unique as long as no two models of a family are made within a millisecond."""
        return f"{family}-{self.created_ms}-{self.data_version[:8]}"

    def fields(self) -> dict[str, int | str]:
        """Fields of the manifest."""
        return {
            "created_ms": self.created_ms,
            "data_version": self.data_version,
            "train_from_ms": self.train_from_ms,
            "train_until_ms": self.train_until_ms,
        }


def data_version(rows: TrainingRows) -> str:
    """Hash of everything that training reads: equal rows, equal version."""
    digest = hashlib.sha256(spec.SPEC_ID.encode())
    columns = (rows.features, rows.clicked, rows.time_ms, rows.user, rows.item, rows.recent)
    for array in (*columns, rows.position, rows.purchased, rows.purchases_come):
        digest.update(np.ascontiguousarray(array).data)
    digest.update("\0".join((*rows.users, "", *rows.items)).encode())
    return digest.hexdigest()[:16]


def ranker_parity(ranker: Ranker, features: npt.NDArray[np.float32], *, seed: int) -> float:
    """Largest difference of a probability between graph and library on up to PARITY_ROWS rows.

    Raises: InvalidArtifact: over PARITY_MAX_ABS, or logit and pctr disagree; do not register it.
    """
    chosen = np.random.default_rng(seed).permutation(len(features))[:PARITY_ROWS]
    sample = features[chosen]
    logit, pctr, *pcvr = served(ranker.graph)(sample)
    gaps = [
        np.abs(pctr - ranker.predict(sample)).max(),
        np.abs(1.0 / (1.0 + np.exp(-logit.astype(np.float64))) - pctr).max(),
    ]
    if ranker.predict_pcvr is not None:
        gaps.append(np.abs(pcvr[0] - ranker.predict_pcvr(sample)).max())
    # Not the builtin: nan stays nan.
    return _within(ranker.family, float(np.max(gaps)))


def served(graph: bytes) -> Callable[[Floats], list[Floats]]:
    """What the ranker service runs of a ranker's graph: features to logit, pctr and maybe pcvr."""
    parts = split(graph)
    if parts is None:
        session = session_of(graph)
        return lambda rows: list(session.run(None, {"features": rows}))
    forest, rest = parts
    of_sums = session_of(rest)
    return lambda rows: list(of_sums.run(None, {SUMS: forest.sums(rows)}))


def ranker_latency(ranker: Ranker, features: npt.NDArray[np.float32], *, seed: int) -> Latency:
    """How long scores take for a request's candidates, on one thread of this machine.

    Args:
        features: shape (n, d), n > 0; requests are drawn from it.
    """
    rng, score = np.random.default_rng(seed), served(ranker.graph)
    requests = [
        features[rng.integers(0, len(features), REQUEST_ROWS)] for _ in range(LATENCY_REQUESTS)
    ]
    score(requests[0])
    spent_ms = []
    for request in requests:
        started_s = time.perf_counter()
        score(request)
        spent_ms.append((time.perf_counter() - started_s) * 1_000)
    return Latency(float(np.quantile(spent_ms, 0.99)), LATENCY_REQUESTS)


def tower_parity(towers: Towers, *, seed: int) -> float:
    """Largest difference between the graph's query and the library's.

    Raises: InvalidArtifact, as ranker_parity.
    """
    session, rng = session_of(towers.graph), np.random.default_rng(seed)
    worst, items = 0.0, len(towers.items.item_id)
    for _ in range(100):
        recent = rng.integers(-1, items, (1, rng.integers(1, HISTORY_FOR_PARITY)))
        weight = rng.random(recent.shape).astype(np.float32)
        (query,) = session.run(["query"], {"recent": recent, "weight": weight})
        worst = max(worst, float(np.abs(query - towers.query(recent, weight)).max()))
    return _within(towers.family, worst)


def _within(family: str, gap: float) -> float:
    # Not `gap > limit`: nan fails too.
    if not gap <= PARITY_MAX_ABS:
        raise InvalidArtifact(
            f"invalid_artifact: the ONNX graph of {family} is off by {gap:g} (limit"
            f" {PARITY_MAX_ABS:g}). Nothing was registered. Mend the export."
        )
    return gap


def write_ranker(
    root: Path,
    ranker: Ranker,
    train: TrainingRows,
    origin: Origin,
    *,
    metrics: Mapping[str, float],
    parity: float,
    utility: Utility | None = None,
    narrowed: Mapping[Precision, Variant] = NOT_NARROWED,
    seed: int,
) -> Artifact:
    """The ranker's folder under `root`, its graph in other precisions beside it.

    Raises: as write_artifact.
    """
    model_id = origin.model_id(ranker.family)
    histograms = {
        name: encode_histogram(reference_histogram(train.features[:, place]))
        for place, name in enumerate(spec.NAMES)
    }
    means = train.features.mean(axis=0, dtype=np.float64).tolist()
    fields = {
        **origin.fields(),
        "model_id": model_id,
        "role": "ranker",
        "family": ranker.family,
        "spec_id": spec.SPEC_ID,
        "metrics": {**metrics, **_measured(narrowed)},
        "parity_max_abs": parity,
        "prerank": fit_prerank(served(ranker.graph), train.features, utility, seed=seed),
        "utility": utility,
        "parameters": dict(ranker.parameters),
        "feature_means": tuple(means),
        "feature_histograms": histograms,
    }
    files: dict[str, bytes | Path] = {
        f"{precision}.onnx": variant.graph for precision, variant in narrowed.items()
    }
    return write_artifact(root / "ranker" / model_id, fields, {**files, RANKER_FILE: ranker.graph})


def _measured(narrowed: Mapping[Precision, Variant]) -> dict[str, float]:
    return {
        f"{precision}_{name}": value
        for precision, variant in narrowed.items()
        for name, value in (("max_abs", variant.max_abs), ("cpu_ms", variant.cpu_ms))
    }


def write_retrieval(
    root: Path,
    towers: Towers,
    tables: tuple[Neighbours, ...],
    rated: RatingTable,
    origin: Origin,
    *,
    queries: npt.NDArray[np.float32],
    cold: ColdVectors,
    metrics: Mapping[str, float],
    parity: float,
    seed: int,
    exact_max: int = EXACT_MAX,
) -> Artifact:
    """The folder of query tower, item table, index, lists and rating table under `root`.

    Args:
        rated: for the rankers' vectors.
        queries: held out, shape (n, dimensions); a large index is tuned on them. Its rows are in
            the order of its cells, and so are those of all that is written.
        cold: vectors of new items.
        exact_max: items up to which the index is exact.

    Raises: as write_artifact.
    """
    model_id, items = origin.model_id(towers.family), towers.items
    with tempfile.TemporaryDirectory() as folder:
        built = build_index(items.vectors, queries, Path(folder), seed=seed, exact_max=exact_max)
        order = built.order
        table, neighbours = Path(folder) / ITEMS_FILE, Path(folder) / NEIGHBOURS_FILE
        lists = NeighbourLists(tuple(in_order(one, order) for one in tables), towers.share)
        write_neighbour_lists(neighbours, lists)
        item_id = np.array(items.item_id, np.str_)[order]
        np.savez(
            table,
            item_id=item_id,
            id64=np.array([id64(name) for name in item_id.tolist()], np.uint64),
            vectors=items.vectors[order],
            popularity=items.popularity[order],
        )
        fields = {
            **origin.fields(),
            "model_id": model_id,
            "role": "retrieval",
            "family": towers.family,
            "metrics": {**metrics, f"index_recall_{DEPTH}": built.recall},
            "parity_max_abs": parity,
            "parameters": {
                **{f"{one.name}_lists": one.rows.shape[1] for one in tables},
                **_index_parameters(built),
                "rated_items": len(rated),
            },
            "items": len(items.item_id),
            "dimensions": int(items.vectors.shape[1]),
        }
        files: dict[str, bytes | Path] = {
            TOWER_FILE: towers.graph,
            ITEMS_FILE: table,
            INDEX_FILE: Path(folder) / INDEX_FILE,
            NEIGHBOURS_FILE: neighbours,
        }
        files[RATINGS_FILE] = Path(folder) / RATINGS_FILE
        write_rating_table(Path(folder) / RATINGS_FILE, rated)
        files[COLD_FILE] = Path(folder) / COLD_FILE
        write_cold_vectors(Path(folder) / COLD_FILE, cold)
        if built.coverage is not None:
            files[TOWER_FILE] = renumbered_graph(towers.graph, order)
            files[CELLS_FILE] = Path(folder) / CELLS_FILE
        return write_artifact(root / "retrieval" / model_id, fields, files)


def _index_parameters(built: BuiltIndex) -> dict[str, str | float]:
    if built.coverage is None:
        return {"index": "exact"}
    return {"index": "IVF,SQ8", COVERAGE: built.coverage}
