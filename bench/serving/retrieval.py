"""Retrieval alone: recall, processor time and memory of an index as it is built and served.

Each size is built and searched in a process of its own, so that its memory is its own. Queries that
are measured are not those that the index was tuned on. Filters let items pass at random, or by
cluster, where the clusters that pass are mostly not the query's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from bench.figures import ROOT, Figure, figure
from bench.serving.vectors import DIMENSIONS, Drawn, Floats, draw_items, draw_queries
from pipelines.train.index import build_index, nearest, recall
from rankstream.adapters.cell_choice import NAME as CELLS
from rankstream.adapters.cell_index import CellIndex
from rankstream.adapters.cold_vectors import no_vectors
from rankstream.adapters.faiss_index import FaissIndex, load_index
from rankstream.adapters.index_file import NAME as INDEX
from rankstream.candidates.fresh import FreshItems
from rankstream.candidates.item_columns import ItemColumns
from rankstream.contracts.content import content_of
from rankstream.contracts.subset import Subset, packed
from rankstream.pb.events_pb2 import Item

SIZES: Final[Mapping[str, int]] = {"1m": 1_000_000, "10m": 10_000_000}
FILTERED: Final = "1m"  # filters are measured at this size
K: Final = 500
TUNED_ON: Final = 200
MEASURED_ON: Final = 200
REPEATS: Final = 5
SHARES: Final[Mapping[str, float]] = {"50": 0.5, "10": 0.1, "1": 0.01, "0.1": 0.001}
ADDED: Final = 10_000
SEED: Final = 1
_NONE: Final = np.empty(0, np.int64)

Say = Callable[[str], None]
Index = FaissIndex | CellIndex


def retrieval(name: str, say: Say) -> list[Figure]:
    """The figures of one of SIZES, from a new process.

    Raises: subprocess.CalledProcessError: it failed, and has said why.
    """
    command = (sys.executable, "-m", "bench.serving.retrieval", "--size", name)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    rows = [Figure(**row) for row in json.loads(done.stdout.splitlines()[-1])]
    for row in rows:
        say(f"{row.id}: {row.value:.4g} {row.unit}")
    return rows


def measured(name: str, items: int) -> list[Figure]:
    """The figures of an index of so many items, built and searched in this process."""
    drawn = draw_items(items, seed=SEED)
    queries = draw_queries(drawn, TUNED_ON + MEASURED_ON, seed=SEED + 1)
    with tempfile.TemporaryDirectory(dir=ROOT / ".run") as place:
        folder = Path(place)
        started_s, cpu_s = time.perf_counter(), time.process_time()
        built = build_index(drawn.vectors, queries[MEASURED_ON:], folder, seed=SEED)
        build_s, build_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        drawn = Drawn(drawn.vectors[built.order], drawn.cluster[built.order])
        # One request is one thread, as in the services; the build may use all. FAISS has threads
        # of its own, those of NumPy's matrix products are counted while they wait for work.
        threadpool_limits(1)
        faiss.omp_set_num_threads(1)
        private, started_s = _private_bytes(), time.perf_counter()
        index = load_index(folder, size=items, coverage=built.coverage)
        load_s = time.perf_counter() - started_s
        parts = [folder / part for part in (INDEX, CELLS)]
        used = sum(part.stat().st_size for part in parts if part.exists())
        gb = (used + max(0, _private_bytes() - private)) / 1e9
        raw_gb = items * DIMENSIONS * 4 / 1e9
        queries = queries[:MEASURED_ON]
        prefix = f"retrieval.{name}"
        truth = nearest(drawn.vectors, queries, K, None)
        found = [
            figure(f"{prefix}.cpu_ms", _cpu_ms(index, queries, None), "ms/query"),
            Figure(f"{prefix}.recall500", recall(index, queries, truth, None), "share"),
            Figure(f"{prefix}.gb", gb, "GB", None, f"{raw_gb:.3g} GB of float32", gb / raw_gb),
            Figure(f"{prefix}.build_s", build_s, "s"),
            Figure(f"{prefix}.build_cpu_us", build_cpu_s / items * 1e6, "CPU us/item"),
            Figure(f"{prefix}.load_s", load_s, "s"),
        ]
        return [*found, *_filters(index, drawn, queries)] if name == FILTERED else found


def _filters(index: Index, drawn: Drawn, queries: Floats) -> Iterator[Figure]:
    rng = np.random.default_rng(SEED + 2)
    by_row = rng.random(len(drawn.cluster))
    # Clusters in any order; those pass that begin before the share of the items is reached.
    sizes = np.bincount(drawn.cluster)
    order = rng.permutation(len(sizes))
    begins = np.empty(len(sizes))
    begins[order] = (np.cumsum(sizes[order]) - sizes[order]) / len(by_row)
    by_cluster = begins[drawn.cluster]
    for percent, share in SHARES.items():
        for way, values in (("", by_row), (".by_cluster", by_cluster)):
            within = Subset(len(values), words=packed(values < share))
            truth = nearest(drawn.vectors, queries, K, within)
            lists = [index.search(query, K, _NONE, within)[0] for query in queries]
            filled = [len(a) / len(b) for a, b in zip(lists, truth, strict=True)]
            found = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(lists, truth, strict=True)]
            name = f"retrieval.filter.{percent}{way}"
            yield Figure(f"{name}.recall", float(np.mean(found)), "share")
            yield Figure(f"{name}.recall_least", float(np.min(found)), "share, worst query")
            yield Figure(f"{name}.filled", float(np.min(filled)), "share, worst query")
            yield figure(f"{name}.cpu_ms", _cpu_ms(index, queries, within), "ms/query")


def _cpu_ms(index: Index, queries: Floats, within: Subset | None) -> list[float]:
    """Of a query, over REPEATS rounds; the bits of a subset are counted anew for each."""
    spent = []
    for _ in range(REPEATS):
        started_s = time.process_time()
        for query in queries:
            subset = None if within is None else Subset(within.size, words=within.words)
            index.search(query, K, _NONE, subset)
        spent.append((time.process_time() - started_s) / len(queries) * 1_000)
    return spent


def _private_bytes() -> int:
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def additions(say: Say) -> list[Figure]:
    """What it costs to make a new item retrievable, from its update on."""
    spent = []
    for _ in range(REPEATS):
        columns, fresh = ItemColumns(), FreshItems(no_vectors(DIMENSIONS), limit=ADDED)
        updates = [_update(number) for number in range(ADDED)]
        started_s = time.process_time()
        for item in updates:
            facts = columns.learn(item)
            assert facts is not None
            fresh.put(item.item_id, content_of(item), facts)
        spent.append((time.process_time() - started_s) / ADDED * 1e6)
    row = figure("retrieval.fresh.add_us", spent, "CPU us/item")
    say(f"{row.id}: {row.value:.4g} {row.unit}")
    return [row]


def _update(number: int) -> Item:
    item = Item(item_id=f"item-{number}", category=f"category-{number % 50}", updated_ms=1)
    item.title = f"A title of some words, the {number}th"
    item.attributes.update({"price": 9.5, "latitude": 48.0 + number / ADDED, "longitude": 11.0})
    return item


def main(argv: Sequence[str]) -> int:
    """Measure one size in this process and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving.retrieval", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    name = parser.parse_args(argv).size
    rows = [asdict(row) for row in measured(name, SIZES[name])]
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
