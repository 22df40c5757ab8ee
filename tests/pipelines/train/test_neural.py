"""A fit learns, stops, and goes on after a crash as if there had been none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from pipelines.train import networks, neural
from pipelines.train.checkpoint import Run
from pipelines.train.encoding import encoding_of
from pipelines.train.neural_rankers import ALONE, fit_mmoe, fit_wide_deep
from pipelines.train.rankers import Ranker
from pipelines.train.shapes import SHAPES, Size
from rankstream.errors import InvalidInput
from tests.pipelines.rows import some_rows

ROWS = some_rows(3_000)


class Crash(Exception):
    """Stands for a process that ends."""


def mmoe(run: Run = ALONE, *, seed: int = 1) -> Ranker:
    return fit_mmoe(ROWS.features, ROWS.clicked, ROWS.purchased, seed=seed, run=run)


def crash_at(epoch: int) -> Callable[[str, int, int], None]:
    def step(what: str, done: int, total: int) -> None:
        if done == epoch:
            raise Crash

    return step


def begins_at(folder: Path, data_version: str, *, seed: int = 1) -> int:
    """The first epoch that a fit tells of; it ends there."""
    epochs: list[int] = []

    def step(what: str, done: int, total: int) -> None:
        epochs.append(done)
        raise Crash

    with pytest.raises(Crash):
        mmoe(Run(folder, data_version, step), seed=seed)
    return epochs[0]


@pytest.fixture(scope="module")
def whole() -> Ranker:
    """A fit that nothing interrupted."""
    return mmoe()


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of data-1 that ended before its third epoch."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.raises(Crash):
        mmoe(Run(folder, "data-1", crash_at(2)))
    return folder


@pytest.fixture
def folder(crashed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(crashed, tmp_path / "copy")


def test_a_fit_goes_on_after_a_crash_to_the_same_bits(whole: Ranker, folder: Path) -> None:
    assert begins_at(folder, "data-1") == 2

    resumed = mmoe(Run(folder, "data-1"))

    assert resumed.graph == whole.graph
    assert resumed.parameters == whole.parameters
    assert begins_at(folder, "data-1") == neural.EPOCHS_MAX  # it was done, and is not done again


def test_a_checkpoint_of_other_data_or_of_another_seed_is_of_no_use(folder: Path) -> None:
    assert begins_at(folder, "data-2") == begins_at(folder, "data-1", seed=2) == 0


def test_a_torn_checkpoint_is_of_no_use(folder: Path) -> None:
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:1_000])

    assert begins_at(folder, "data-1") == 0


def test_both_heads_learn_what_is_theirs(whole: Ranker) -> None:
    assert whole.predict_pcvr is not None
    pctr, pcvr = whole.predict(ROWS.features), whole.predict_pcvr(ROWS.features)
    clicks, buys = ROWS.features[:, 0], ROWS.features[:, 1]
    assert np.corrcoef(clicks, pctr)[0, 1] > 0.7 > 0.3 > abs(np.corrcoef(buys, pctr)[0, 1])
    assert np.corrcoef(buys, pcvr)[0, 1] > 0.7 > 0.3 > abs(np.corrcoef(clicks, pcvr)[0, 1])


def test_an_unknown_purchase_is_no_negative() -> None:
    purchased = ROWS.purchased.copy()
    purchased[np.random.default_rng(3).random(len(purchased)) < 0.6] = -1

    ranker = fit_mmoe(ROWS.features, ROWS.clicked, purchased, seed=1)

    assert ranker.predict_pcvr is not None
    rate = ROWS.purchased.mean()
    assert ranker.predict_pcvr(ROWS.features).mean() == pytest.approx(rate, abs=0.25 * rate)


def test_purchases_that_are_still_to_come_are_missed_by_no_one() -> None:
    """Feature 0 is 1 for items of the last day, of whose purchases a quarter to three quarters have
    come; everybody buys alike."""
    rng = np.random.default_rng(5)
    n, rate = 20_000, 0.3
    features = np.zeros((n, 2), np.float32)
    features[:, 1] = rng.normal(size=n)
    new = rng.random(n) < 0.3
    features[new, 0] = 1.0
    come = np.where(new, rng.uniform(0.25, 0.75, n), 1.0).astype(np.float32)
    buys = rng.random(n) < rate
    seen = buys & (rng.random(n) < come)
    purchased = np.where(seen, 1, np.where(new, -1, 0)).astype(np.int8)
    clicked = (rng.random(n) < 0.5).astype(np.uint8)

    def of_new(known: npt.NDArray[np.float32] | None) -> float:
        ranker = fit_mmoe(features, clicked, purchased, seed=1, purchases_come=known)
        assert ranker.predict_pcvr is not None
        return float(ranker.predict_pcvr(features[new]).mean())

    assert of_new(come) == pytest.approx(rate, abs=0.03)
    # What is seen of them alone says that all of them buy.
    assert of_new(None) > 2 * rate


@pytest.mark.parametrize("seen", [0.0, 0.3, 1.0])
def test_the_loss_of_a_row_is_how_unlikely_what_was_seen_of_it_is(seen: float) -> None:
    network, rows = networks.mmoe(SHAPES[Size.SMALL]), 40
    features = ROWS.features[:rows]
    encoding = encoding_of(ROWS.features, pieces=SHAPES[Size.SMALL].pieces)
    parameters = network.initial(jax.random.key(1), len(encoding))
    labels = np.stack([ROWS.clicked[:rows] > 0, ROWS.purchased[:rows] > 0], axis=1).astype(np.int8)
    columns = np.stack([np.ones(rows), np.full(rows, seen)], axis=1).astype(np.float32)
    weight = np.linspace(0.5, 2.0, rows, dtype=np.float32)

    def total(parameters: networks.Parameters) -> jax.Array:
        given = (features, labels, columns, weight)
        return neural._losses(network, encoding, parameters, *map(jnp.asarray, given))[0].sum()

    chance = neural.probabilities(network, encoding, parameters)(features)
    happened = np.where(labels == 1, chance, 1.0 - columns * chance)
    assert float(total(parameters)) == pytest.approx(-(weight @ np.log(happened)).sum(), rel=1e-4)
    slopes = jax.tree.leaves(jax.grad(total)(parameters))
    assert all(np.isfinite(np.asarray(slope)).all() for slope in slopes)


def test_weights_undo_the_sampling_of_negatives() -> None:
    kept = (ROWS.clicked == 1) | (np.random.default_rng(4).random(len(ROWS)) < 0.5)
    rows = ROWS.take(np.flatnonzero(kept))
    weight = np.where(rows.clicked == 1, 1.0, 2.0)

    ranker = fit_mmoe(rows.features, rows.clicked, rows.purchased, seed=1, sample_weight=weight)

    assert ranker.predict(ROWS.features).mean() == pytest.approx(ROWS.clicked.mean(), abs=0.04)


def test_a_log_without_purchases_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"of 2700 rows to fit, 0 .* and 2700 were not: one cl"):
        fit_mmoe(ROWS.features, ROWS.clicked, np.zeros(len(ROWS), np.int8), seed=1)


@pytest.mark.parametrize("size", Size)
def test_a_size_is_what_it_says(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "EPOCHS_MAX", 0)

    found = [
        fit_wide_deep(ROWS.features, ROWS.clicked, seed=1, size=size),
        fit_mmoe(ROWS.features, ROWS.clicked, ROWS.purchased, seed=1, size=size),
    ]

    low, high = {Size.SMALL: (5e4, 2e5), Size.FULL: (8e6, 1.2e7)}[size]
    for ranker in found:
        assert low < float(ranker.parameters["weights"]) < high
