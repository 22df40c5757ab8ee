"""Position bias: examination is found, and rankers do not learn it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from scipy.optimize import minimize_scalar

from pipelines.train.artefact import PARITY_MAX_ABS, ranker_parity
from pipelines.train.families import FITS
from pipelines.train.position import (
    EXAMINATION_MIN,
    POSITIONS_MAX,
    ClicksOfExamined,
    Examined,
    click_weights,
    examination_given,
    fit_examined,
    fit_on_relevance,
    randomised_examination,
    serve_at_mean,
)
from pipelines.train.rankers import Ranker, fit_logistic_regression
from pipelines.train.trees import fit_xgboost
from rankstream.errors import InvalidInput

TRUTH = np.array([1.0, 0.6, 0.3, 0.15])
Doubles = npt.NDArray[np.float64]


class Biased:
    """Items whose feature 0 decides their position, whose feature 1 their relevance."""

    def __init__(self, n: int, *, seed: int, strength: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(n, 3)).astype(np.float32)
        belief = strength * self.features[:, 0] + rng.normal(size=n)
        self.position = np.argsort(np.argsort(-belief.reshape(-1, 4), axis=1), axis=1).ravel()
        self.relevance = 1 / (1 + np.exp(0.5 - 1.5 * self.features[:, 1].astype(np.float64)))
        relevant = rng.random(n) < self.relevance
        self.clicked = (relevant & (rng.random(n) < TRUTH[self.position])).astype(np.uint8)


def learned_by_position(ranker: Ranker) -> float:
    """How much the ranker likes what was shown at the top because it was: a slope by feature 0."""
    rng = np.random.default_rng(9)
    features = rng.normal(size=(20_000, 3)).astype(np.float32)
    pctr = ranker.predict(features)
    slope, _ = np.polyfit(features[:, 0], np.log(pctr / (1 - pctr)), 1)
    return float(slope)


def test_randomised_traffic_gives_examination() -> None:
    log = Biased(400_000, seed=1, strength=0.0)

    found = randomised_examination(log.clicked, log.position)

    assert np.abs(found / TRUTH - 1).max() < 0.04
    assert found.max() == 1.0


@pytest.mark.parametrize(
    ("clicked", "position", "reason"),
    [
        ([1, 0], [0, 2], "position 1 has no impression"),
        ([0, 0], [0, 1], "there is no click"),
    ],
)
def test_randomised_traffic_that_says_nothing_is_refused(
    clicked: list[int], position: list[int], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        randomised_examination(np.array(clicked, np.uint8), np.array(position))


def test_examination_is_the_most_likely_one_by_a_search_position_by_position() -> None:
    log = Biased(8_000, seed=2)
    slow = np.empty(len(TRUTH))
    for place in range(len(TRUTH)):
        rows = log.position == place

        def loss(examined: float, rows: npt.NDArray[np.bool_] = rows) -> float:
            pctr = examined * log.relevance[rows]
            return -float(np.log(np.where(log.clicked[rows] == 1, pctr, 1 - pctr)).sum())

        slow[place] = minimize_scalar(loss, bounds=(1e-6, 1.0), method="bounded").x

    found = examination_given(log.relevance, log.clicked, log.position)

    assert found == pytest.approx(slow / slow.max(), abs=1e-4)


def test_a_position_without_clicks_has_the_least_examination() -> None:
    relevance = np.full(200, 0.5)
    position = np.repeat([0, 2], 100)

    found = examination_given(relevance, (position == 0).astype(np.uint8), position)

    assert found.tolist() == [1.0, EXAMINATION_MIN, EXAMINATION_MIN]


def test_deep_positions_share_one_examination() -> None:
    position = np.tile(np.arange(2 * POSITIONS_MAX), 20)

    found = randomised_examination(np.ones(len(position), np.uint8), position)

    assert found.tolist() == [1.0] * POSITIONS_MAX


def test_slopes_are_the_derivatives_of_the_loss() -> None:
    log, rng = Biased(400, seed=3), np.random.default_rng(3)
    weight = rng.uniform(0.5, 2.0, 400)
    likelihood = ClicksOfExamined(log.clicked, log.position, known=TRUTH, sample_weight=weight)
    everything, margin = slice(None), rng.normal(size=400)
    step = 1e-5

    first, second = likelihood.slopes(margin, everything)

    for row in range(0, 400, 20):
        moved = np.zeros(400)
        moved[row] = step
        sides = [likelihood.loss(margin + s * moved, everything) for s in (-1, 1)]
        numeric = (sides[1] - sides[0]) / (2 * step) * weight.sum()
        assert first[row] == pytest.approx(numeric, abs=1e-4)
    # Fisher's information: the squared slope, by the probabilities of click and no click.
    relevant = 1 / (1 + np.exp(-margin))
    pctr = TRUTH[log.position] * relevant
    rate = TRUTH[log.position] * relevant * (1 - relevant)
    assert second == pytest.approx(weight * rate**2 / (pctr * (1 - pctr)))


def test_trees_find_examination_and_do_not_learn_position() -> None:
    log = Biased(80_000, seed=4)

    naive = fit_xgboost(log.features, log.clicked, seed=1)
    found = fit_examined(log.features, log.clicked, log.position, seed=1)

    assert learned_by_position(naive) > 0.3
    assert abs(learned_by_position(found.ranker)) < 0.06
    assert np.abs(found.examination / TRUTH - 1).max() < 0.08
    assert np.abs(found.ranker.predict(log.features) - log.relevance).mean() < 0.03


def test_known_examination_is_kept() -> None:
    log = Biased(20_000, seed=5)

    found = fit_examined(log.features, log.clicked, log.position, seed=1, known=TRUTH)

    assert found.examination is TRUTH
    assert abs(learned_by_position(found.ranker)) < 0.1


def test_examination_of_too_few_positions_is_refused() -> None:
    log = Biased(2_000, seed=5)

    with pytest.raises(InvalidInput, match="position 3 and an examination of 2 positions"):
        fit_examined(log.features, log.clicked, log.position, seed=1, known=TRUTH[:2])


@pytest.mark.parametrize("fit", FITS.values())
def test_every_family_can_be_fitted_on_relevance(fit: Callable[..., Ranker]) -> None:
    log = Biased(12_000, seed=6)
    examined = fit_examined(log.features, log.clicked, log.position, seed=1, known=TRUTH)

    ranker = fit_on_relevance(fit, log.features, log.clicked, log.position, examined, seed=1)

    assert abs(learned_by_position(ranker)) < 0.15
    assert np.abs(ranker.predict(log.features) - log.relevance).mean() < 0.06
    assert ranker_parity(ranker, log.features, seed=1) <= PARITY_MAX_ABS


def test_relevance_of_full_examination_is_the_label() -> None:
    log = Biased(4_000, seed=7)
    plain = fit_logistic_regression(log.features, log.clicked, seed=1)
    examined = Examined(plain, np.ones(len(TRUTH)))

    ranker = fit_on_relevance(
        fit_logistic_regression, log.features, log.clicked, log.position, examined, seed=1
    )

    assert ranker.predict(log.features) == pytest.approx(plain.predict(log.features), abs=1e-6)


def test_weighted_clicks_lessen_what_position_teaches() -> None:
    log = Biased(20_000, seed=8)
    weight = click_weights(log.clicked, log.position, TRUTH)

    weighted = fit_xgboost(log.features, log.clicked, seed=1, sample_weight=weight)

    naive = fit_xgboost(log.features, log.clicked, seed=1)
    assert weight[log.clicked == 0].tolist() == [1.0] * int((log.clicked == 0).sum())
    assert np.array_equal(weight[log.clicked == 1], 1 / TRUTH[log.position[log.clicked == 1]])
    assert learned_by_position(weighted) < 0.7 * learned_by_position(naive)


@pytest.mark.parametrize("fit", FITS.values())
def test_the_served_graph_has_the_click_rate_and_asks_for_no_position(
    fit: Callable[..., Ranker],
) -> None:
    log = Biased(4_000, seed=9)
    examined = fit_examined(log.features, log.clicked, log.position, seed=1, known=TRUTH)
    relevance = fit_on_relevance(fit, log.features, log.clicked, log.position, examined, seed=1)

    served = serve_at_mean(relevance, log.features, log.clicked)

    assert served.predict(log.features).mean() == pytest.approx(log.clicked.mean())
    assert ranker_parity(served, log.features, seed=1) <= PARITY_MAX_ABS
    graph = ort.InferenceSession(served.graph)
    assert [asked.name for asked in graph.get_inputs()] == ["features"]
    assert [told.name for told in graph.get_outputs()] == ["logit", "pctr"]
    before, after = (ranker.predict(log.features) for ranker in (relevance, served))
    assert np.array_equal(np.argsort(before), np.argsort(after))
