"""Training writes all models or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.features.replay import ItemFacts, TrainingRows
from pipelines.train.artefact import data_version
from pipelines.train.calibration import Method
from pipelines.train.corrections import Corrections, PositionBias
from pipelines.train.families import Family, Networks, Options
from pipelines.train.precision import Precision
from pipelines.train.retrieval import fit_pure_svd
from pipelines.train.sources import TowerFamily
from pipelines.train.steps import Trained, hold_unobserved, split, train
from rankstream.adapters.artifacts import read_manifest
from rankstream.adapters.cold_vectors import read_cold_vectors
from rankstream.adapters.faiss_index import load_index
from rankstream.adapters.item_table import read_item_table
from rankstream.adapters.neighbour_lists import read_neighbour_lists
from rankstream.adapters.onnx_model import OnnxModel
from rankstream.adapters.query_tower import QueryTower
from rankstream.adapters.rating_table_file import read_rating_table
from rankstream.contracts.columns import Kind
from rankstream.contracts.manifest import Utility
from rankstream.errors import InvalidInput
from rankstream.features import spec
from rankstream.monitoring.histogram import decode_histogram
from tests.pipelines.rows import GROUPS, some_rows
from tests.rankstream.features.test_rating_table import a_table


def facts_of(rows: TrainingRows) -> dict[str, ItemFacts]:
    """The groups of `some_rows` are categories."""
    return {item: ItemFacts(f"group {k % GROUPS}", {}) for k, item in enumerate(rows.items)}


def trained(rows: TrainingRows, root: Path, **chosen: Any) -> Trained:
    facts = facts_of(rows)
    return train(rows, facts, root, created_ms=1, seed=1, step=lambda *told: None, **chosen)


def test_the_artefacts_load_where_they_are_served(tmp_path: Path) -> None:
    rows = some_rows()

    catalogue = facts_of(rows) | {"never-shown": ItemFacts("group 1", {})}

    found = train(rows, catalogue, tmp_path, created_ms=7, seed=1, step=lambda *told: None)

    aliases = [(alias, a.manifest.role, a.manifest.family) for alias, a in found.artifacts]
    assert aliases == [
        ("champion", "ranker", "logistic_regression"),
        ("challenger", "ranker", "xgboost"),
        ("champion", "retrieval", "pure_svd"),
    ]
    for _, ranker in found.artifacts[:2]:
        assert OnnxModel.load(ranker.uri, ranker.sha256).model_id == ranker.manifest.model_id
        assert set(ranker.manifest.feature_histograms) == set(spec.NAMES)
        for stored in ranker.manifest.feature_histograms.values():
            assert decode_histogram(stored).n == found.train_rows
        assert ranker.manifest.metrics["auc"] > 0.75
    index = found.artifacts[2][1]
    manifest = read_manifest(index.uri, index.sha256)
    table = read_item_table(Path(index.uri))
    assert table.item_id[-1] == "never-shown"
    cold = read_cold_vectors(Path(index.uri), dimensions=manifest.dimensions)
    with np.load(Path(index.uri) / "items.npz") as columns:
        assert columns["vectors"][-1].tolist() == cold.by_category["group 1"].tolist()
    assert (
        load_index(Path(index.uri), size=manifest.items, coverage=None).size == len(rows.items) + 1
    )
    tower = QueryTower.load(Path(index.uri), dimensions=manifest.dimensions)
    assert tower.embed(np.array([0, -1])).shape == (manifest.dimensions,)


def test_the_rating_table_goes_with_the_index_to_where_vectors_are_made(tmp_path: Path) -> None:
    found = trained(some_rows(), tmp_path, rated=a_table())

    index = found.artifacts[2][1]
    assert index.manifest.parameters["rated_items"] == len(a_table())
    served = read_rating_table(Path(index.uri), table_id="index")
    assert served.weight.tobytes() == a_table().weight.tobytes()


def test_what_was_retrieved_is_measured_and_goes_to_the_registry(tmp_path: Path) -> None:
    found = trained(some_rows(), tmp_path)

    index = found.artifacts[2][1].manifest
    assert index.metrics == found.metrics["retrieval"] | {"index_recall_500": 1.0}
    assert found.metrics["retrieval"] == {
        **{n: one.value for n, one in found.retrieval.items()},
        "items": 30.0,
    }
    ndcg = found.retrieval["ndcg_at_10"]
    assert 0 < ndcg.low < ndcg.value < ndcg.high < 1
    assert found.retrieval["coverage"].value == 1.0
    assert 0 < found.retrieval["diversity"].value < 1


def test_two_towers_take_the_place_of_pure_svd_in_the_artefact(tmp_path: Path) -> None:
    rows = some_rows()

    found = trained(
        rows,
        tmp_path,
        retrieval=TowerFamily.TWO_TOWER,
    )

    index = found.artifacts[2][1]
    assert index.manifest.family == "two_tower"
    assert index.manifest.parity_max_abs <= 1e-4
    tower = QueryTower.load(Path(index.uri), dimensions=index.manifest.dimensions)
    query = tower.embed(np.array([0, -1, 3]))
    _, nearest = load_index(Path(index.uri), size=len(rows.items), coverage=None).search(
        query, 5, np.empty(0, np.int64)
    )
    assert np.isfinite(nearest).all()
    lists = read_neighbour_lists(Path(index.uri), size=len(rows.items))
    assert [table.name for table in lists.tables] == ["company", "successors"]


@pytest.mark.parametrize("family", Family)
def test_every_family_can_be_champion_of_itself(tmp_path: Path, family: Family) -> None:
    rows = some_rows()

    found = trained(
        rows,
        tmp_path,
        champion=family,
        challenger=Family.LIGHTGBM,
    )

    champion = found.artifacts[0][1]
    assert champion.manifest.family == family.value
    assert OnnxModel.load(champion.uri, champion.sha256).model_id == champion.manifest.model_id
    assert found.comparison.incumbent == f"{family} (champion)"
    assert found.comparison.of(f"{family} (champion)").metrics["auc"].value > 0.75


def test_corrected_rankers_are_served_without_a_position(tmp_path: Path) -> None:
    rows = some_rows()

    found = trained(
        rows,
        tmp_path,
        options=Options(corrections=Corrections(PositionBias.INPUT, popularity_power=0.5)),
    )

    for _, ranker in found.artifacts[:2]:
        assert len(str(ranker.manifest.parameters["examination"]).split()) == 10
        assert 0 < float(ranker.manifest.parameters["effective_rows"]) < found.train_rows
        model = OnnxModel.load(ranker.uri, ranker.sha256)
        pctr = model.score(rows.features).pctr
        assert pctr.mean() == pytest.approx(rows.clicked.mean(), rel=0.1)


@pytest.mark.parametrize("calibration", [Method.BEST, Method.ISOTONIC])
def test_heads_of_several_tasks_reach_the_artefact(tmp_path: Path, calibration: Method) -> None:
    rows = some_rows()
    price = spec.NAMES.index("item_price")
    rows.features[:, price] = -1.0
    rows.features[::2, price] = 4.0

    found = trained(
        rows,
        tmp_path,
        champion=Family.MMOE,
        options=Options(
            negatives=0.5,
            corrections=Corrections(popularity_power=0.5),
            calibration=calibration,
            networks=Networks(precision=Precision.FLOAT16, purchase_weight=2.0),
        ),
    )

    champion = found.artifacts[0][1]
    manifest = champion.manifest
    assert manifest.utility == Utility(
        click=1.0, purchase=2.0, value="item_price", value_default=4.0
    )
    assert set(manifest.files) == {
        "model.onnx",
        "float32.onnx",
        "float16.onnx",
        "int8.onnx",
    }
    assert manifest.files["model.onnx"] == manifest.files["float16.onnx"]
    assert manifest.metrics["pcvr_auc"] > 0.65
    assert 0 < manifest.parity_max_abs == manifest.metrics["float16_max_abs"]
    scores = OnnxModel.load(champion.uri, champion.sha256).score(rows.features)
    assert scores.pcvr is not None
    assert scores.pctr.mean() == pytest.approx(rows.clicked.mean(), abs=0.05)
    assert scores.pcvr.mean() == pytest.approx(rows.purchased.mean(), abs=0.05)
    assert not (tmp_path / "checkpoints").exists()


def test_a_purchase_without_a_price_is_worth_the_same_everywhere(tmp_path: Path) -> None:
    rows = some_rows()
    rows.features[:, spec.NAMES.index("item_price")] = -1.0

    found = trained(
        rows,
        tmp_path,
        challenger=Family.MMOE,
    )

    champion, challenger = (artifact.manifest for _, artifact in found.artifacts[:2])
    assert champion.utility is None
    assert challenger.utility == Utility(click=1.0, purchase=1.0)


def test_no_test_row_is_trained_on() -> None:
    rows = some_rows()

    before, after, cut_ms = split(rows)

    assert before.time_ms.max() < cut_ms <= after.time_ms.min()
    assert len(before) + len(after) == len(rows)
    assert len(after) == len(rows) // 10


def test_equal_rows_have_equal_versions_and_one_bit_makes_another() -> None:
    rows, other = some_rows(), some_rows()

    other.features[5, 5] += 1e-6
    sold = some_rows()
    sold.purchased[5] = -1
    late = some_rows()
    late.purchases_come[5] = 0.5

    assert data_version(rows) == data_version(some_rows())
    moved = replace(rows, position=rows.position[::-1])
    assert len(set(map(data_version, (rows, other, sold, late, moved)))) == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clicked": np.zeros(3_000, np.uint8)}, "3000 rows, 0 of them clicked: one class only"),
        ({"clicked": np.full(3_000, np.nan)}, "the label of row 0 is nan, not 0 or 1"),
        ({"features": np.full((3_000, spec.WIDTH), np.nan, np.float32)}, "feature 0 of row 0 is"),
        (
            {"clicked": np.array([1, 0] * 1_350 + [0] * 300, np.uint8)},
            "300 rows, 0 of them clicked: one class only",
        ),
    ],
)
def test_rows_that_teach_nothing_are_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        trained(replace(some_rows(), **change), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_items_liked_together_are_near_each_other() -> None:
    group = np.arange(30) % 3
    user, item = np.nonzero(group[:, None] == group[None, :12])

    items = fit_pure_svd(tuple(f"i{k}" for k in range(12)), user, item, users=30, seed=1)

    near = items.vectors @ items.vectors[0]
    assert set(np.argsort(-near)[:4].tolist()) == {0, 3, 6, 9}
    assert items.popularity.tolist() == [10.0] * 12


def test_one_user_is_no_company() -> None:
    with pytest.raises(InvalidInput, match="1 users like 2 items"):
        fit_pure_svd(("a", "b"), np.zeros(2, np.int64), np.arange(2), users=1, seed=1)


def test_a_rate_of_what_never_happened_is_held_at_its_default() -> None:
    rows = some_rows(50)
    cvr = spec.NAMES.index("item_cvr")
    without = np.array([Kind.IMPRESSION, Kind.CLICK], np.uint8)

    held = hold_unobserved(rows, without)
    kept = hold_unobserved(rows, np.append(without, np.uint8(Kind.PURCHASE)))

    assert set(held.features[:, cvr].tolist()) == {np.float32(spec.CVR_PRIOR)}
    others = [k for k, name in enumerate(spec.NAMES) if not name.endswith("_cvr")]
    assert np.array_equal(held.features[:, others], rows.features[:, others])
    assert np.array_equal(kept.features, rows.features)
