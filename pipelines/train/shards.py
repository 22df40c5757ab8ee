"""Boosted trees from Parquet shards that do not fit in memory, whoever wrote them.

XGBoost's external memory: every shard is read once to be cut into bins, a byte or two for each
value; the bins lie in a folder of scratch and are read again for each tree. The shards are those of
`pipelines.features batch`, written by DuckDB or by Spark. What is learnt differs from training in
memory only where quantiles are merged shard by shard.

Source: Chen and Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016, sections 3.2, 4.2.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
from sklearn.metrics import log_loss, roc_auc_score

from pipelines.train.trees import BOOSTING, MAX_BIN
from rankstream.errors import Conflict, InvalidInput
from rankstream.features import spec

LABEL: Final = "clicked"
ROUNDS_MAX: Final = 400
EARLY_STOPPING_ROUNDS: Final = 20
MODEL: Final = "model.ubj"
SUMMARY: Final = "model.json"


@dataclass(frozen=True)
class Fitted:
    """What was learnt from which days; metrics are those of the last day, which took no part."""

    features: tuple[str, ...]
    spec_id: str
    days: tuple[str, ...]
    rows: int
    trees: int
    auc: float
    logloss: float


class Shards(xgb.DataIter):
    """Hands XGBoost one shard at a time."""

    def __init__(self, files: Sequence[Path], features: Sequence[str], cache: Path) -> None:
        self._files, self._features, self._next = files, features, 0
        super().__init__(cache_prefix=str(cache))

    def next(self, input_data: Callable[..., None]) -> bool:
        """Give the next shard; False: there is none."""
        if self._next == len(self._files):
            return False
        values, clicked = read(self._files[self._next], self._features)
        input_data(data=values, label=clicked, feature_names=list(self._features))
        self._next += 1
        return True

    def reset(self) -> None:
        """Begin again."""
        self._next = 0


def read(file: Path, features: Sequence[str]) -> tuple[npt.NDArray[np.float32], pa.Array]:
    """Features, float32, shape (n, d), and labels of one shard.

    Raises: InvalidInput: it lacks a column, or a label is neither 0 nor 1.
    """
    try:
        missing = {*features, LABEL} - set(pq.read_schema(file).names)
        if missing:
            raise _unusable(file, f"has no column {min(missing)}")
        table = pq.read_table(file, columns=[*features, LABEL], partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise _unusable(file, f"cannot be read: {str(error)[:200]}") from None
    clicked = table[LABEL].to_numpy()
    if not np.isin(clicked, (0, 1)).all():
        raise _unusable(file, f"has a {LABEL} that is neither 0 nor 1")
    values = np.empty((table.num_rows, len(features)), np.float32)
    for column, name in enumerate(features):
        values[:, column] = table[name].to_numpy()
    return values, clicked


def _unusable(file: Path, problem: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_input: shard {file} {problem}. Nothing was trained. Write it again:"
        " remove the folder of its day, run `pipelines.features batch`."
    )


def parameters(*, seed: int, threads: int) -> dict[str, str | float | int]:
    """Of the booster. No sampling of rows or columns: the order of shards must not matter."""
    whole = {"subsample": 1.0, "colsample_bytree": 1.0}
    return {**BOOSTING, **whole, "seed": seed, "nthread": threads}


def fit_shards(rows: Path, out: Path, *, seed: int, threads: int) -> Fitted:
    """Fit on all days but the last, stop early by the last, write the model and what it is.

    Args:
        rows: the table `rows` of the batch command, a folder date=... for each day.
        out: folder to make: model.ubj and model.json.

    Raises:
        InvalidInput: fewer than two days have rows, or a part has one class only.
        Conflict: `out` is there already.
    """
    if out.exists():
        raise Conflict(f"conflict: {out} is there. Nothing was trained. Name a new folder.")
    days = {day.name: files for day in sorted(rows.glob("date=*")) if (files := _files(day))}
    if len(days) < 2:
        raise InvalidInput(
            f"invalid_input: {rows} has rows on {len(days)} days, needed 2: the last one decides"
            " when to stop. Nothing was trained. Run `pipelines.features batch` on more days."
        )
    *first, last = days
    train = [file for day in first for file in days[day]]
    known = set(pq.read_schema(train[0]).names)
    features = [feature.name for feature in spec.FEATURES if feature.name in known]
    counted = _counted(train) + _counted(days[last])
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        cache = Path(scratch)
        booster = boosted(
            train, days[last], features, cache, parameters(seed=seed, threads=threads)
        )
        auc, logloss = _measured(booster, days[last], features)
        trees = booster.num_boosted_rounds()
        fitted = Fitted(tuple(features), spec.SPEC_ID, tuple(days), counted, trees, auc, logloss)
        kept = cache / "kept"
        kept.mkdir()
        booster.save_model(kept / MODEL)
        (kept / SUMMARY).write_text(json.dumps(asdict(fitted), indent=1) + "\n", encoding="utf-8")
        shutil.move(kept, out)
    return fitted


def boosted(
    train: Sequence[Path],
    validation: Sequence[Path],
    features: Sequence[str],
    cache: Path,
    parameters: dict[str, Any],
) -> xgb.Booster:
    """The trees up to the best round."""
    threads = parameters["nthread"]
    data = xgb.ExtMemQuantileDMatrix(
        Shards(train, features, cache / "train"), max_bin=MAX_BIN, nthread=threads
    )
    held_out = xgb.ExtMemQuantileDMatrix(
        Shards(validation, features, cache / "validation"),
        max_bin=MAX_BIN,
        nthread=threads,
        ref=data,
    )
    booster = xgb.train(
        parameters,
        data,
        num_boost_round=ROUNDS_MAX,
        evals=[(held_out, "validation")],
        early_stopping_rounds=EARLY_STOPPING_ROUNDS,
        verbose_eval=False,
    )
    return booster[: booster.best_iteration + 1]


def _files(day: Path) -> list[Path]:
    """Shards with rows: engines write empty ones too."""
    return [file for file in sorted(day.glob("*.parquet")) if pq.read_metadata(file).num_rows]


def _counted(files: Sequence[Path]) -> int:
    """Rows. Raises: InvalidInput: only one class is in them."""
    found = [read(file, ())[1] for file in files]
    rows, clicks = sum(map(len, found)), sum(int(clicked.sum()) for clicked in found)
    if clicks in (0, rows):
        raise InvalidInput(
            f"invalid_input: {rows} rows from {files[0]} on hold {clicks} clicks: one class only."
            " Nothing was trained. Give days with both."
        )
    return rows


def _measured(
    booster: xgb.Booster, files: Sequence[Path], features: Sequence[str]
) -> tuple[float, float]:
    """AUC and log loss."""
    labels, probabilities = [], []
    for file in files:
        values, clicked = read(file, features)
        data = xgb.DMatrix(values, feature_names=list(features))
        labels.append(clicked)
        probabilities.append(booster.predict(data).astype(np.float64))
    y, p = np.concatenate(labels), np.concatenate(probabilities)
    return float(roc_auc_score(y, p)), float(log_loss(y, p))
