"""Hyper-parameters: which of many a family of rankers does best with, on rows later than its own.

Each trial is fitted on the first training rows and judged on what comes next, fold after fold in
time; the test rows are not looked at. A trial that is worse than the median of the others after as
many folds is given up. The first trial is what the family uses without a search.

Trials are kept in SQLite as they end. A search that was interrupted goes on where it was; what the
trial that it was at had done is lost, and another takes its place.

Sources: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011 (TPE); Golovin et
al., "Google Vizier", KDD 2017 (median stopping).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import optuna
from optuna.trial import TrialState
from sklearn.metrics import log_loss
from sqlalchemy.exc import SQLAlchemyError

from pipelines.train.families import FITS, Family
from pipelines.train.parameters import SPACES, Range, Searched
from pipelines.train.rankers import INVERSE_PENALTY, Floats, Labels, Parameters, Ranker
from pipelines.train.trees import BOOSTING, LEAF_WISE
from rankstream.errors import DependencyUnavailable, InvalidInput

FOLDS: Final = 3
FOLD_SHARE: Final = 0.1
_ENDED: Final = (TrialState.COMPLETE, TrialState.PRUNED)
# So many trials are not compared with their median, and are drawn at random.
STARTUP_TRIALS: Final = 8


def _untuned(family: Family) -> Parameters:
    """What the family uses without a search."""
    own: Mapping[Family, Mapping[str, str | float | int]] = {
        Family.LOGISTIC_REGRESSION: {"inverse_penalty": INVERSE_PENALTY},
        Family.XGBOOST: BOOSTING,
        Family.LIGHTGBM: LEAF_WISE,
    }
    used = ((name, own[family][name]) for name in SPACES[family])
    return {name: value for name, value in used if not isinstance(value, str)}


def search(
    features: Floats,
    clicked: Labels,
    family: Family,
    storage: Path,
    *,
    data_version: str,
    trials: int,
    seed: int,
    step: Callable[[str, int, int], None],
) -> Searched:
    """Try parameters until `trials` have ended, those of an interrupted search among them.

    Args:
        features: training rows, shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        storage: SQLite file; made if it is not there. A search goes on if family, data version and
            seed are the same.
        step: hears ("search <family>", trials that have ended, trials).

    Raises: InvalidInput: a family without parameters to look for, or as its fit says of the rows.
        DependencyUnavailable: the file cannot be written.
    """
    if family not in SPACES:
        raise InvalidInput(
            f"invalid_input: family {family} has no parameters to look for (those of"
            f" {', '.join(SPACES)} have). Nothing was tried. Name one of these."
        )
    study = _study(storage, f"{family}-{data_version}-{seed}", family, seed)

    def told() -> int:
        ended = len(study.get_trials(deepcopy=False, states=_ENDED))
        step(f"search {family}", ended, trials)
        return ended

    def loss_of(trial: optuna.Trial) -> float:
        told()
        parameters = {
            name: _suggested(trial, name, space) for name, space in SPACES[family].items()
        }
        return _loss(trial, partial(FITS[family], seed=seed, tuned=parameters), features, clicked)

    study.optimize(loss_of, n_trials=max(0, trials - told()))
    return Searched(
        family=family,
        parameters=study.best_params,
        log_loss=study.best_value,
        untuned_log_loss=next(
            trial.value
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.params == _untuned(family) and trial.value is not None
        ),
        trials=told(),
        pruned=len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))),
        data_version=data_version,
        seed=seed,
    )


def _suggested(trial: optuna.Trial, name: str, space: Range) -> float | int:
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _loss(
    trial: optuna.Trial, fit: Callable[..., Ranker], features: Floats, clicked: Labels
) -> float:
    """Mean log loss over the folds, each later than the rows that its ranker was fitted on."""
    losses: list[float] = []
    for fold in range(FOLDS):
        start, end = (
            round(len(clicked) * (1 - FOLD_SHARE * (FOLDS - k))) for k in (fold, fold + 1)
        )
        ranker = fit(features[:start], clicked[:start])
        pctr = ranker.predict(features[start:end])
        losses.append(float(log_loss(clicked[start:end], pctr, labels=[0, 1])))
        trial.report(float(np.mean(losses)), fold)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(losses))


def _study(storage: Path, name: str, family: Family, seed: int) -> optuna.Study:
    """The study of that name, made if it is new; what an interrupted search was at has failed."""
    # What fails is told by name, not by its trace.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{storage}",
            study_name=name,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )
    except (OSError, SQLAlchemyError) as error:
        raise DependencyUnavailable(
            f"dependency_unavailable: trials cannot be kept in {storage}: {str(error)[:200]}."
            " Nothing was tried. Name a file that can be written."
        ) from None
    known = study.get_trials(deepcopy=False)
    for trial in known:
        if trial.state is TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    states = (*_ENDED, TrialState.WAITING)
    if not study.get_trials(deepcopy=False, states=states):
        study.enqueue_trial(dict(_untuned(family)))
    # With the seed of the beginning a sampler would draw the same trials again.
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=STARTUP_TRIALS, seed=seed + len(known)
    )
    return study
