"""Corrections change what rankers learn, and nothing when they are off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.features.replay import TrainingRows
from pipelines.train.corrections import (
    UNCORRECTED,
    Corrections,
    PositionBias,
    fit_corrected,
    row_weights,
)
from pipelines.train.families import FITS, Family
from pipelines.train.rankers import fit_logistic_regression
from rankstream.errors import InvalidInput
from rankstream.features import spec
from tests.pipelines.rows import some_rows

GENDER = spec.NAMES.index("user_gender_male")


def biased_rows(n: int = 8_000) -> TrainingRows:
    """Clicks of the lower positions are lost, and feature 1 decides the position."""
    rows = some_rows(n)
    position = np.clip(np.rint(2.0 - rows.features[:, 1]), 0, 4).astype(np.int64)
    lost = np.random.default_rng(3).random(n) > 0.6**position
    return replace(rows, position=position, clicked=np.where(lost, 0, rows.clicked))


@pytest.mark.parametrize("family", FITS)
def test_without_corrections_the_graph_is_that_of_the_family(family: Family) -> None:
    rows = some_rows()

    found = fit_corrected(FITS[family], rows, UNCORRECTED, negatives=1.0, seed=1)

    plain = FITS[family](rows.features, rows.clicked, seed=1)
    assert found.graph == plain.graph
    assert found.parameters == plain.parameters


@pytest.mark.parametrize("position", [PositionBias.INPUT, PositionBias.WEIGHTS])
@pytest.mark.parametrize("family", [Family.LOGISTIC_REGRESSION, Family.XGBOOST])
def test_feature_of_the_position_matters_less_and_pctr_stays_calibrated(
    family: Family, position: PositionBias
) -> None:
    rows, corrections = biased_rows(), Corrections(position)

    found = fit_corrected(FITS[family], rows, corrections, negatives=1.0, seed=1)

    plain = FITS[family](rows.features, rows.clicked, seed=1)
    moved = rows.features.copy()
    moved[:, 1] += 1.0
    lift = [
        np.log(ranker.predict(moved) / ranker.predict(rows.features)).mean()
        for ranker in (plain, found)
    ]
    assert lift[1] < 0.6 * lift[0]
    assert found.predict(rows.features).mean() == pytest.approx(rows.clicked.mean(), rel=1e-6)
    assert len(str(found.parameters["examination"]).split()) == 5


def test_weights_of_items_and_groups_multiply_and_have_mean_one() -> None:
    rows = some_rows()
    rows.features[:, GENDER] = np.arange(len(rows)) % 10 == 0
    both = Corrections(popularity_power=1.0, balanced_by="user_gender_male")

    weight = row_weights(rows, both)

    assert weight is not None
    assert weight.mean() == pytest.approx(1.0)
    few = rows.features[:, GENDER] == 1
    assert weight[few].sum() == pytest.approx(weight[~few].sum(), rel=0.1)


def test_a_group_of_few_is_heard() -> None:
    rows = some_rows(20_000)
    few = np.arange(len(rows)) % 20 == 0
    rows.features[:, GENDER] = few
    # The few like what the many do not.
    like = rows.features[:, 0] > 0
    rows = replace(rows, clicked=np.where(few, like, ~like).astype(np.uint8))
    corrections = Corrections(balanced_by="user_gender_male")

    heard = fit_corrected(
        fit_logistic_regression, rows, corrections, negatives=1.0, seed=1
    ).predict(rows.features)
    plain = fit_logistic_regression(rows.features, rows.clicked, seed=1).predict(rows.features)

    def slope(pctr: np.ndarray) -> float:
        return float(np.polyfit(rows.features[:, 0], np.log(pctr / (1 - pctr)), 1)[0])

    assert slope(plain) < -1.0
    assert abs(slope(heard)) < 0.3


@pytest.mark.parametrize(
    ("corrections", "negatives", "reason"),
    [
        (Corrections(PositionBias.INPUT), 0.1, "share of negatives 0.1 together with position"),
        (Corrections(balanced_by="shoe_size"), 1.0, "'shoe_size', which is no feature"),
        (Corrections(balanced_by="user_age"), 1.0, r"user_age has \d+ values \(limit 20 groups\)"),
        (Corrections(popularity_power=2.0), 1.0, "popularity power 2"),
    ],
)
def test_corrections_that_cannot_be_made_are_refused(
    corrections: Corrections, negatives: float, reason: str
) -> None:
    rows = some_rows(500)

    with pytest.raises(InvalidInput, match=reason):
        fit_corrected(
            fit_logistic_regression,
            rows,
            corrections,
            negatives=negatives,
            seed=1,
        )
