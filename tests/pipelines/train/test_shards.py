"""Trees learnt shard by shard are those learnt in memory, but for the merging of quantiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb
from sklearn.metrics import roc_auc_score

from pipelines.train.shards import boosted, fit_shards, parameters, read
from pipelines.train.trees import MAX_BIN
from rankstream.errors import Conflict, InvalidInput
from rankstream.features import spec

FEATURES = ("user_ctr_24h", "item_ctr_7d", "item_log_impressions", "category_ctr")


def write(folder: Path, values: npt.NDArray[np.float32], clicked: npt.NDArray[np.int8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: values[:, k] for k, name in enumerate(FEATURES)}
    table = pa.table({"user_id": ["u"] * len(values), **columns, "clicked": clicked})
    pq.write_table(table, folder / f"data_{len(list(folder.iterdir()))}.parquet")


def days(root: Path, *, shards: int, rows: int) -> Path:
    """Four days; the click rate goes by two features and their product."""
    rng = np.random.default_rng(3)
    for day in range(1, 5):
        for shard in range(shards):
            # Shards are unlike each other, as users or hours are.
            values = rng.normal(shard / 4, 1.0, (rows, len(FEATURES))).astype(np.float32)
            logit = values[:, 0] + 0.5 * values[:, 1] * values[:, 2] - 0.5
            clicked = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
            write(root / f"date=2026-01-0{day}", values, clicked)
    return root


def whole(files: list[Path]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    parts = [read(file, FEATURES) for file in files]
    return np.concatenate([v for v, _ in parts]), np.concatenate([c for _, c in parts])


def test_shards_and_memory_agree(tmp_path: Path) -> None:
    files = sorted(days(tmp_path / "rows", shards=3, rows=3_000).glob("*/*.parquet"))
    train, validation = files[:-3], files[-3:]
    settings = parameters(seed=1, threads=1)
    values, clicked = whole(train)
    held_out, truth = whole(validation)
    names = list(FEATURES)
    data = xgb.QuantileDMatrix(values, clicked, feature_names=names, max_bin=MAX_BIN, nthread=1)
    validated = xgb.QuantileDMatrix(
        held_out, truth, feature_names=names, max_bin=MAX_BIN, nthread=1, ref=data
    )
    memory = xgb.train(
        settings,
        data,
        num_boost_round=400,
        evals=[(validated, "validation")],
        early_stopping_rounds=20,
        verbose_eval=False,
    )
    memory = memory[: memory.best_iteration + 1]

    sharded = boosted(train, validation, FEATURES, tmp_path, settings)

    rows = xgb.DMatrix(held_out, feature_names=names)
    ours, theirs = sharded.predict(rows), memory.predict(rows)
    assert roc_auc_score(truth, theirs) > 0.7
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_model_and_what_it_is_are_written_at_one_go(tmp_path: Path) -> None:
    rows, out = days(tmp_path / "rows", shards=2, rows=500), tmp_path / "model"

    fitted = fit_shards(rows, out, seed=1, threads=1)

    summary = json.loads((out / "model.json").read_text())
    assert summary["features"] == list(fitted.features)
    assert set(fitted.features) == set(FEATURES)
    assert (summary["rows"], summary["spec_id"]) == (4_000, spec.SPEC_ID)
    assert summary["days"] == [f"date=2026-01-0{day}" for day in range(1, 5)]
    loaded = xgb.Booster(model_file=out / "model.ubj")
    assert loaded.num_boosted_rounds() == fitted.trees
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows"]
    with pytest.raises(Conflict, match="model is there"):
        fit_shards(rows, out, seed=1, threads=1)


def test_bad_shards_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(InvalidInput, match="has rows on 0 days, needed 2"):
        fit_shards(tmp_path, out, seed=1, threads=1)
    values, both = np.zeros((4, 4), np.float32), np.array([0, 1, 0, 1], np.int8)
    write(tmp_path / "one" / "date=2026-01-01", values, both)
    write(tmp_path / "one" / "date=2026-01-02", values, np.zeros(4, np.int8))
    with pytest.raises(InvalidInput, match="0 clicks: one class only"):
        fit_shards(tmp_path / "one", out, seed=1, threads=1)
    write(tmp_path / "two" / "date=2026-01-01", values, both)
    write(tmp_path / "two" / "date=2026-01-02", values, np.array([0, 1, 2, 1], np.int8))
    with pytest.raises(InvalidInput, match="neither 0 nor 1"):
        fit_shards(tmp_path / "two", out, seed=1, threads=1)
    days(tmp_path / "three", shards=1, rows=200)
    broken = tmp_path / "three" / "date=2026-01-03" / "data_0.parquet"
    pq.write_table(pq.read_table(broken).drop(["item_ctr_7d"]), broken)
    with pytest.raises(InvalidInput, match="has no column item_ctr_7d"):
        fit_shards(tmp_path / "three", out, seed=1, threads=1)
    assert not out.exists()
