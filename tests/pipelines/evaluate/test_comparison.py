"""Models beside each other, from predictions to the champion."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluate.comparison import compare
from pipelines.evaluate.impressions import Impressions
from pipelines.evaluate.intervals import Draws, difference, interval, resample
from pipelines.evaluate.judge import Rules, judge
from pipelines.evaluate.metrics import ranker_metrics
from pipelines.evaluate.weighted import METRICS
from rankstream.errors import InvalidInput
from tests.pipelines.evaluate.candidates import a_comparison, clustered, sigmoid

RULES = Rules(ece_max=0.05, slice_loss_max=0.03)


def test_the_better_model_is_promoted_and_the_others_are_told_why_not() -> None:
    decision = judge(a_comparison(), RULES)
    verdicts = {judged.model: judged.verdict for judged in decision.judgements}

    assert decision.champion == "better"
    assert verdicts == {
        "better": "pass",
        "equal": "inconclusive",
        "overconfident": "fail",
        "broken": "error",
    }


def test_figures_are_those_of_each_metric_alone() -> None:
    clicked, user, logit = clustered(np.random.default_rng(2), users=120)
    old, new = sigmoid(0.3 * logit), sigmoid(logit)
    impressions = Impressions.of(clicked, user)
    draws = Draws(impressions.users, 150, 7)
    alone = resample(
        {name: METRICS["auc"].build(impressions, p) for name, p in (("old", old), ("new", new))},
        draws,
    )

    found = compare(impressions, {"new": new, "old": old}, incumbent="old", replicates=150, seed=7)

    assert [model.model for model in found.models] == ["old", "new"]
    assert found.of("new").metrics["auc"] == interval(alone["new"])
    assert found.of("new").against["auc"] == difference(alone["new"], alone["old"])
    assert found.of("old").against == {}
    plain = ranker_metrics(clicked, new, user)
    assert found.of("new").metrics["ece"].value == pytest.approx(plain["ece"])
    assert found.gauc_users_left_out == plain["gauc_users_left_out"]


def test_metrics_of_lists_need_queries() -> None:
    clicked, user, logit = clustered(np.random.default_rng(3), users=50)
    model = {"m": sigmoid(logit)}

    without = compare(Impressions.of(clicked, user), model, incumbent="m", replicates=100)
    given = compare(Impressions.of(clicked, user, user), model, incumbent="m", replicates=100)

    assert "ndcg_at_5" not in without.of("m").metrics
    assert 0 < given.of("m").metrics["ndcg_at_5"].value <= 1


def test_a_slice_has_the_metrics_of_its_rows_and_a_small_one_none() -> None:
    clicked, user, logit = clustered(np.random.default_rng(4), users=300)
    country = np.where(user < 5, "nz", "de")
    rows = user >= 5

    found = compare(
        Impressions.of(clicked, user),
        {"m": sigmoid(logit)},
        incumbent="m",
        slices={"country": country},
        replicates=100,
    )

    large, small = found.of("m").slices
    expected = ranker_metrics(clicked[rows], sigmoid(logit)[rows])
    assert large.metrics["auc"].value == pytest.approx(expected["auc"])
    assert (large.n, large.users) == (rows.sum(), 295)
    assert small.too_small
    assert small.metrics == {}


def test_an_invalid_incumbent_stops_the_comparison() -> None:
    impressions = Impressions.of([0, 1], ["u1", "u2"])

    with pytest.raises(InvalidInput, match=r"incumbent 'old' is none of \['new'\]"):
        compare(impressions, {"new": [0.1, 0.2]}, incumbent="old")
    with pytest.raises(InvalidInput, match="pctr of row 0 is nan"):
        compare(impressions, {"old": [np.nan, 0.2]}, incumbent="old")
    with pytest.raises(InvalidInput, match=r"slice metrics \['rmse'\] are none of"):
        compare(impressions, {"old": [0.1, 0.2]}, incumbent="old", slice_metrics=("rmse",))
