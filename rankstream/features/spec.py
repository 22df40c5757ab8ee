"""The ordered names of the features, their defaults, and the hash that goes with every vector."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from rankstream.errors import InvalidSettings
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES
from rankstream.features.rows import (
    CATEGORIES,
    CONTEXT_ATTRIBUTES,
    RATED,
    RECENT,
    WINDOWS,
)

# Beta prior of every smoothed rate: strength x mean is what an unseen thing has.
CTR_PRIOR: Final = 0.3
CVR_PRIOR: Final = 0.02
PRIOR_STRENGTH: Final = 10.0
RATING_PRIOR: Final = 3.5
RATING_STRENGTH: Final = 5.0
# How many of a user's newest ratings are averaged: the mood of a sitting, and that of some.
LAST_RATINGS: Final = (5, 20)

# Of `rating_table`: what the user would rate the candidate, how much of it is what items rated
# alike say beside the levels of user and item, and what factors say beside them.
EXPECTED_RATING: Final = "user_item_expected_rating"
TOLD_BY_TABLE: Final = (EXPECTED_RATING, "user_item_rating_residual", "user_item_factor_residual")

_ENTITIES: Final = ("user", "item", "category", "query", "location")


@dataclass(frozen=True)
class Feature:
    """One float32 input of a ranker; `default` is its value when nothing is known."""

    name: str
    default: float


def _entity(entity: str) -> list[Feature]:
    windowed = [
        feature
        for window in WINDOWS
        for feature in (
            Feature(f"{entity}_log_impressions_{window.name}", 0.0),
            Feature(f"{entity}_ctr_{window.name}", CTR_PRIOR),
        )
    ]
    return [
        *windowed,
        Feature(f"{entity}_log_impressions", 0.0),
        Feature(f"{entity}_ctr", CTR_PRIOR),
        Feature(f"{entity}_cvr", CVR_PRIOR),
        Feature(f"{entity}_log_ratings", 0.0),
        Feature(f"{entity}_mean_rating", RATING_PRIOR),
        Feature(f"{entity}_log_idle_s", 20.0),
    ]


FEATURES: Final[tuple[Feature, ...]] = (
    *(feature for entity in _ENTITIES for feature in _entity(entity)),
    Feature("user_session_log_s", 0.0),
    Feature("user_session_impressions", 0.0),
    Feature("user_session_clicks", 0.0),
    *(Feature(f"user_last_{last}_mean_rating", RATING_PRIOR) for last in LAST_RATINGS),
    *(Feature(f"user_{name}", -1.0) for name in USER_ATTRIBUTES),
    *(Feature(f"context_{known.name}", known.unknown) for known in CONTEXT_ATTRIBUTES),
    *(Feature(f"item_{name}", -1.0) for name in ITEM_ATTRIBUTES),
    Feature("user_category_log_impressions", 0.0),
    Feature("user_category_ctr", CTR_PRIOR),
    Feature("user_category_mean_rating", RATING_PRIOR),
    Feature("user_category_recent_share", 0.0),
    Feature("hour_sin", 0.0),
    Feature("hour_cos", 1.0),
    *(Feature(name, RATING_PRIOR * (name == EXPECTED_RATING)) for name in TOLD_BY_TABLE),
)
NAMES: Final = tuple(feature.name for feature in FEATURES)
WIDTH: Final = len(FEATURES)
_TWICE: Final = sorted({name for name in NAMES if NAMES.count(name) > 1})
if _TWICE:
    raise InvalidSettings(
        f"invalid_settings: attributes {', '.join(_TWICE)} have the names of other features. Not"
        " started. Name them otherwise."
    )

# What changes a feature's value without changing its name belongs here.
_DEFINITION: Final = {
    "features": [[feature.name, feature.default] for feature in FEATURES],
    "windows": [list(window) for window in WINDOWS],
    "priors": [CTR_PRIOR, CVR_PRIOR, PRIOR_STRENGTH, RATING_PRIOR, RATING_STRENGTH],
    "sizes": [RECENT, RATED, CATEGORIES, *LAST_RATINGS],
    "context": [list(known) for known in CONTEXT_ATTRIBUTES],
    "revision": 1,
}
SPEC_ID: Final = hashlib.sha256(json.dumps(_DEFINITION, sort_keys=True).encode()).hexdigest()[:16]
