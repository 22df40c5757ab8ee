"""A search looks at training rows alone, goes on after a crash, and is never worse than none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from sklearn.metrics import log_loss

from pipelines.train import search as searching
from pipelines.train.families import FITS, Family
from pipelines.train.parameters import SPACES, Searched, read_parameters, write_parameters
from pipelines.train.rankers import INVERSE_PENALTY
from pipelines.train.search import search
from rankstream.errors import DependencyUnavailable, InvalidInput
from tests.pipelines.rows import some_rows

ROWS = some_rows(900)


def searched(
    storage: Path,
    *,
    family: Family = Family.LOGISTIC_REGRESSION,
    trials: int = 5,
    seed: int = 1,
    step: Any = lambda *told: None,
) -> Searched:
    return search(
        ROWS.features,
        ROWS.clicked,
        family,
        storage,
        data_version="abc",
        trials=trials,
        seed=seed,
        step=step,
    )


def ended(storage: Path) -> list[tuple[int, dict[str, Any], float | None]]:
    (name,) = optuna.get_all_study_names(f"sqlite:///{storage}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{storage}")
    return [(t.number, t.params, t.value) for t in study.trials if t.state.is_finished()]


def test_the_best_of_what_was_tried_is_at_least_what_is_used_without(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    found = searched(tmp_path / "s.db", step=lambda *what: told.append(what))

    tried = ended(tmp_path / "s.db")
    assert tried[0][1] == {"inverse_penalty": INVERSE_PENALTY}
    assert found.untuned_log_loss == tried[0][2]
    assert found.log_loss == min(value for _, _, value in tried if value is not None)
    assert found.log_loss <= found.untuned_log_loss
    assert (len(tried), found.trials) == (5, 5)
    assert told == [("search logistic_regression", k, 5) for k in (0, 0, 1, 2, 3, 4, 5)]


def test_a_trial_is_judged_on_rows_after_those_that_it_was_fitted_on(tmp_path: Path) -> None:
    found = searched(tmp_path / "s.db", trials=1)

    losses = []
    for start, end in ((630, 720), (720, 810), (810, 900)):
        ranker = FITS[Family.LOGISTIC_REGRESSION](
            ROWS.features[:start], ROWS.clicked[:start], seed=1
        )
        pctr = ranker.predict(ROWS.features[start:end])
        losses.append(log_loss(ROWS.clicked[start:end], pctr))
    assert found.log_loss == pytest.approx(np.mean(losses), abs=1e-12)


@pytest.mark.parametrize("crash", [KeyboardInterrupt, SystemExit])
def test_a_search_that_was_interrupted_goes_on(tmp_path: Path, crash: type[BaseException]) -> None:
    def until_two_have_ended(what: str, done: int, total: int) -> None:
        if done == 2:
            raise crash

    with pytest.raises(crash):
        searched(tmp_path / "s.db", step=until_two_have_ended)
    before = [trial for trial in ended(tmp_path / "s.db") if trial[2] is not None]

    found = searched(tmp_path / "s.db")

    after = [trial for trial in ended(tmp_path / "s.db") if trial[2] is not None]
    assert len(before) == 2
    assert after[:2] == before
    assert len(after) == found.trials == 5
    # A sampler that began again would try the same.
    assert len({trial[1]["inverse_penalty"] for trial in after}) == 5


def test_a_search_that_has_ended_tries_nothing_more(tmp_path: Path) -> None:
    first = searched(tmp_path / "s.db", trials=3)

    assert searched(tmp_path / "s.db", trials=3) == first


def test_what_falls_behind_the_median_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "STARTUP_TRIALS", 2)

    found = searched(tmp_path / "s.db", trials=10)

    assert 0 < found.pruned < 8


@pytest.mark.parametrize("family", [Family.XGBOOST, Family.LIGHTGBM])
def test_what_is_found_is_what_the_family_takes(tmp_path: Path, family: Family) -> None:
    found = searched(tmp_path / "s.db", family=family, trials=2)
    write_parameters(tmp_path / "found" / "best.json", found)

    for_family, parameters = read_parameters(tmp_path / "found" / "best.json")

    assert (for_family, parameters) == (family, found.parameters)
    assert set(parameters) == set(SPACES[family])
    ranker = FITS[family](ROWS.features, ROWS.clicked, seed=1, tuned=parameters)
    assert {name: ranker.parameters[name] for name in parameters} == parameters


def test_a_family_without_a_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="family random_forest has no parameters to look for"):
        searched(tmp_path / "s.db", family=Family.RANDOM_FOREST)


def test_trials_that_cannot_be_kept_are_not_begun(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(DependencyUnavailable, match="trials cannot be kept in"):
        searched(tmp_path / "file" / "s.db")


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ("no json", "JSONDecodeError"),
        ({"family": "oracle", "parameters": {}}, "'oracle' is not a valid Family"),
        ({"family": "xgboost"}, "KeyError 'parameters'"),
        ({"family": "random_forest", "parameters": {}}, "KeyError"),
        ({"family": "xgboost", "parameters": {"depth": 3}}, "xgboost has no parameter depth of 3"),
        ({"family": "xgboost", "parameters": {"max_depth": True}}, "max_depth of True"),
        ({"family": "xgboost", "parameters": {"max_depth": 40}}, r"max_depth is 40 \(2 to 8\)"),
    ],
)
def test_parameters_that_are_none_are_refused(tmp_path: Path, stored: object, reason: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(stored if isinstance(stored, str) else json.dumps(stored))

    with pytest.raises(InvalidInput, match=reason):
        read_parameters(path)


def test_parameters_that_are_absent_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.json: FileNotFoundError"):
        read_parameters(tmp_path / "none.json")
