"""Parameters of rankers that a search looks for, and the file in which `run` finds them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pipelines.train.families import Family
from pipelines.train.rankers import Parameters
from rankstream.errors import InvalidInput


@dataclass(frozen=True)
class Range:
    """Where a parameter is looked for, ends included; whole numbers if both ends are."""

    low: float
    high: float
    log: bool = False


SPACES: Final[Mapping[Family, Mapping[str, Range]]] = {
    Family.LOGISTIC_REGRESSION: {"inverse_penalty": Range(1e-4, 10.0, log=True)},
    Family.XGBOOST: {
        "max_depth": Range(2, 8),
        "learning_rate": Range(0.03, 0.3, log=True),
        "min_child_weight": Range(1.0, 200.0, log=True),
        "subsample": Range(0.5, 1.0),
        "colsample_bytree": Range(0.2, 1.0),
        "reg_lambda": Range(0.1, 50.0, log=True),
    },
    Family.LIGHTGBM: {
        "num_leaves": Range(7, 127, log=True),
        "learning_rate": Range(0.02, 0.2, log=True),
        "min_data_in_leaf": Range(10, 500, log=True),
        "bagging_fraction": Range(0.5, 1.0),
        "feature_fraction": Range(0.2, 1.0),
        "lambda_l2": Range(0.1, 50.0, log=True),
    },
}


@dataclass(frozen=True)
class Searched:
    """The best parameters; log losses are means over the folds, of the untuned family too."""

    family: Family
    parameters: Parameters
    log_loss: float
    untuned_log_loss: float
    trials: int
    pruned: int
    data_version: str
    seed: int


def write_parameters(path: Path, found: Searched) -> None:
    """One JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_parameters(path: Path) -> tuple[Family, Parameters]:
    """What write_parameters wrote.

    Raises: InvalidInput: the file is not there, or says something else.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        family, parameters = Family(stored["family"]), dict(stored["parameters"])
        known = SPACES[family]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(path, f"{type(error).__name__} {str(error)[:200]}") from None
    for name, value in parameters.items():
        space = known.get(name)
        if space is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise _unusable(path, f"{family} has no parameter {name} of {value!r}")
        if not space.low <= value <= space.high:
            raise _unusable(path, f"{name} is {value:g} ({space.low:g} to {space.high:g})")
    return family, parameters


def _unusable(path: Path, problem: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_input: parameters {path}: {problem}. Nothing was trained."
        " Make the file with `python -m pipelines search`."
    )
