"""`python -m bench.pit_join`: a point-in-time join, ours beside others', each in its own process.

1 M rows ask for 27 features of one of 200,000 users at a time within 30 days; the history has 5 M
rows of them. `feast` is `get_historical_features` over our offline store, `asof` what it runs on,
`pandas` is `merge_asof` by key, `feast_dask` the offline store that Feast takes by default.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from bench.figures import OUT, Figure, figure, machine, write

ROOT: Final = Path(__file__).resolve().parents[1]
FIGURES: Final = OUT / "pit.json"
ASKED: Final = 1_000_000
HELD: Final = 5_000_000
USERS: Final = 200_000
FEATURES: Final = tuple(f"feature_{k}" for k in range(27))
SPAN_MS: Final = 30 * 86_400_000
START_MS: Final = 1_790_000_000_000
GROUP_ROWS: Final = 500_000
KEY, TIME, ROW = "user_id", "event_timestamp", "row"
_TIMES: Final = pa.timestamp("ms", tz="UTC")
REPEATS: Final = {"asof": 3, "feast": 3, "pandas": 3, "feast_dask": 1}


@dataclass(frozen=True)
class Run:
    """One join: how long, peak memory of its process, and what came out."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    rows: int
    missing: int  # values that nothing was found for
    total: float  # of all values, weighted by row


def draw(folder: Path, *, asked: int, held: int, seed: int) -> None:
    """Write entities.parquet and history.parquet."""
    rng = np.random.default_rng(seed)
    names = np.array([f"user-{k:07d}" for k in range(USERS)])

    def drawn(rows: int) -> dict[str, Any]:
        # Distinct times of a user's rows: ties would have no one answer.
        times = START_MS + rng.choice(SPAN_MS, rows, replace=False)
        return {KEY: names[rng.integers(0, USERS, rows)], TIME: pa.array(times).cast(_TIMES)}

    pq.write_table(pa.table({**drawn(asked), ROW: np.arange(asked)}), folder / "entities.parquet")
    history = drawn(held)
    schema = pa.schema(
        [(KEY, pa.string()), (TIME, _TIMES), *((name, pa.float32()) for name in FEATURES)]
    )
    with pq.ParquetWriter(folder / "history.parquet", schema) as writer:
        for start in range(0, held, GROUP_ROWS):
            part = {name: column[start : start + GROUP_ROWS] for name, column in history.items()}
            values = {name: rng.random(len(part[KEY]), np.float32) for name in FEATURES}
            writer.write_table(pa.table({**part, **values}, schema=schema))


def by_asof(folder: Path) -> pa.Table:
    """Our join alone."""
    from pipelines.features.asof import History, asof_join

    names = {name: name for name in FEATURES}
    history = History(str(folder / "history.parquet"), {KEY: KEY}, TIME, names, timedelta(days=90))
    return asof_join(pq.read_table(folder / "entities.parquet"), TIME, [history])


def by_pandas(folder: Path) -> pa.Table:
    """pandas.merge_asof by key; it wants both sides in order of time."""
    import pandas as pd

    entities = pd.read_parquet(folder / "entities.parquet").sort_values(TIME)
    history = pd.read_parquet(folder / "history.parquet").sort_values(TIME)
    joined = pd.merge_asof(entities, history, on=TIME, by=KEY, tolerance=pd.Timedelta(days=90))
    return pa.Table.from_pandas(joined, preserve_index=False)


def by_feast(folder: Path, offline: Any = None) -> pa.Table:
    """`get_historical_features` with our offline store, or another."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Float32

    from pipelines.features.offline_store import AsofOfflineStoreConfig

    user = Entity(name="user", join_keys=[KEY], value_type=ValueType.STRING)
    source = FileSource(
        path=str(folder / "history.parquet"),
        file_format=ParquetFormat(),
        timestamp_field=TIME,
    )
    view = FeatureView(
        name="users",
        entities=[user],
        ttl=timedelta(days=90),
        schema=[Field(name=name, dtype=Float32) for name in FEATURES],
        source=source,
    )
    with tempfile.TemporaryDirectory() as registry:
        store = FeatureStore(
            config=RepoConfig(
                project="pit",
                provider="local",
                registry=f"{registry}/registry.db",
                offline_store=offline or AsofOfflineStoreConfig(),
                online_store={"type": "sqlite", "path": f"{registry}/online.db"},
                entity_key_serialization_version=3,
            )
        )
        store.apply([user, view])
        job = store.get_historical_features(
            entity_df=pd.read_parquet(folder / "entities.parquet"),
            features=[f"users:{name}" for name in FEATURES],
        )
        return job.to_arrow()


def by_feast_dask(folder: Path) -> pa.Table:
    """Feast's default offline store."""
    return by_feast(folder, {"type": "dask"})


JOINS: Final[Mapping[str, Callable[[Path], pa.Table]]] = {
    "asof": by_asof,
    "feast": by_feast,
    "pandas": by_pandas,
    "feast_dask": by_feast_dask,
}
IMPORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "asof": ("pipelines.features.asof",),
    "feast": ("feast", "pipelines.features.offline_store"),
    "pandas": ("pandas",),
    "feast_dask": ("feast", "feast.infra.offline_stores.dask"),
}


def measure(name: str, folder: Path) -> Run:
    """Join in this process; imports are not counted."""
    for module in IMPORTS[name]:
        importlib.import_module(module)
    started_s, cpu_s = time.perf_counter(), time.process_time()
    joined = JOINS[name](folder)
    seconds, cpu_seconds = time.perf_counter() - started_s, time.process_time() - cpu_s
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    weight = joined[ROW].to_numpy() % 997 + 1.0
    columns = [joined[feature].to_numpy() for feature in FEATURES]
    return Run(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_gb=peak_gb,
        rows=joined.num_rows,
        missing=sum(int(np.isnan(column).sum()) for column in columns),
        total=sum(float(np.nansum(column * weight)) for column in columns),
    )


def measured_apart(name: str, folder: Path) -> Run:
    """Join in a new process, so that its peak memory is its own.

    Raises: subprocess.CalledProcessError: it failed, and has said why.
    """
    command = (sys.executable, "-m", "bench.pit_join", "--join", name, "--folder", str(folder))
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def figures(runs: Mapping[str, list[Run]]) -> list[Figure]:
    """The rows of bench/out/pit.json; the ratio is pandas' time over ours."""
    pandas_s = figure("", [run.seconds for run in runs["pandas"]], "s").value
    found = []
    for name, of in runs.items():
        prefix = "stream.pit_join" if name == "feast" else f"stream.pit_join.{name}"
        taken = figure(f"{prefix}_s", [run.seconds for run in of], "s")
        if name != "pandas":
            taken = Figure(
                taken.id,
                taken.value,
                taken.unit,
                taken.spread,
                "stream.pit_join.pandas_s",
                taken.value / pandas_s,
            )
        found += [
            taken,
            figure(f"{prefix}_cpu_s", [run.cpu_seconds for run in of], "CPU-s"),
            figure(f"{prefix}_gb", [run.peak_gb for run in of], "GB"),
            Figure(f"{prefix}.rows", of[0].rows, "rows"),
        ]
    return found


def compare(console: Console, *, asked: int, held: int, out: Path) -> int:
    """Measure all, in turn; 1 if our results differ from pandas'."""
    runs: dict[str, list[Run]] = {name: [] for name in JOINS}
    console.print(machine())
    with tempfile.TemporaryDirectory(dir=ROOT / ".run") as name:
        folder = Path(name)
        draw(folder, asked=asked, held=held, seed=1)
        for turn in range(max(REPEATS.values())):
            for join in JOINS:
                if turn < REPEATS[join]:
                    run = measured_apart(join, folder)
                    runs[join].append(run)
                    console.print(
                        f"{join}: {run.seconds:.1f} s, {run.cpu_seconds:.1f} CPU-s,"
                        f" {run.peak_gb:.2f} GB, {run.rows} rows, {run.missing} values missing"
                    )
    write(figures(runs), command="python -m bench pit", path=out)
    truth = runs["pandas"][0]
    same = [
        (run.rows, run.missing) == (truth.rows, truth.missing)
        and abs(run.total / truth.total - 1) < 1e-9
        for join in ("asof", "feast")
        for run in runs[join]
    ]
    if not all(same):
        console.print("pit_join_differs: our rows are not those of pandas.merge_asof.")
    return int(not all(same))


def main(argv: list[str]) -> int:
    """Compare all, or, with --join, run one join and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.pit_join", description=__doc__)
    parser.add_argument("--join", choices=sorted(JOINS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--asked", type=int, default=ASKED)
    parser.add_argument("--held", type=int, default=HELD)
    parser.add_argument("--out", type=Path, default=FIGURES)
    chosen = parser.parse_args(argv)
    if chosen.join:
        sys.stdout.write(json.dumps(asdict(measure(chosen.join, chosen.folder))) + "\n")
        return 0
    return compare(Console(), asked=chosen.asked, held=chosen.held, out=chosen.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
