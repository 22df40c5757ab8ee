"""Feature definitions in Feast: entities, views, the on-demand view that evaluates `snapshot`.

The online store holds packed counters rows (`features.rows`), one Bytes field `state` per view,
which services/features writes and the ranker reads; Feast is told of them here, so that anything
that speaks Feast sees the same rows and, through `ranker_features`, the same numbers. Ask for them
with `full_feature_names=True`: without, Feast takes the three `state` fields for one, and
`ranker_features` refuses the mixture by name. Columns of a rating table have their defaults here:
the table comes with an index, not with a row.
"""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Bytes, Float32, Int64, String
from feast.value_type import ValueType

from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    FEATURE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    View,
)
from rankstream.errors import SpecMismatch
from rankstream.features import spec
from rankstream.features.expiry import STATE_TTL_MS
from rankstream.features.rows import Rows, empty_rows
from rankstream.features.snapshot import snapshot

# How long after its last change a row is still found in the history: the stream forgets it then.
# What is known of an item does not age.
_AGE: Final = timedelta(milliseconds=STATE_TTL_MS)
TTL: Final = {
    USER_STATE.name: _AGE,
    ITEM_STATE.name: timedelta(0),
    CATEGORY_STATE.name: _AGE,
    QUERY_STATE.name: _AGE,
    LOCATION_STATE.name: _AGE,
}

# What Feast passes for a Bytes field, on `apply`, to see which columns come out.
_PROBE: Final = b"hello world"

USER: Final = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
ITEM: Final = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
CATEGORY: Final = Entity(name="category", join_keys=["category"], value_type=ValueType.STRING)
QUERY: Final = Entity(name="query", join_keys=["query"], value_type=ValueType.STRING)
LOCATION: Final = Entity(name="location", join_keys=["location"], value_type=ValueType.STRING)
ENTITY_OF: Final = {
    USER_STATE: USER,
    ITEM_STATE: ITEM,
    CATEGORY_STATE: CATEGORY,
    QUERY_STATE: QUERY,
    LOCATION_STATE: LOCATION,
}


def _view(view: View, entity: Entity, offline: str) -> FeatureView:
    """A view of packed rows; the stream is its source, dumps of rows in the lake its history."""
    batch = FileSource(
        name=f"{view.name}_rows",
        path=f"{offline}/{view.name}/*.parquet",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    )
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=TTL[view.name],
        schema=[Field(name=view.join_key, dtype=String), Field(name=FEATURE, dtype=Bytes)],
        source=PushSource(name=f"{view.name}_push", batch_source=batch),
        online=True,
    )


def _rows(states: pd.Series, view: View) -> Rows:
    """Packed rows of a column of states; an absent one is the empty row.

    Raises: SpecMismatch if a state has another length than this version's.
    """
    absent = empty_rows(1, view.dtype).tobytes()
    known = [state if isinstance(state, bytes) and state != _PROBE else absent for state in states]
    if any(len(state) != view.row_bytes for state in known):
        raise SpecMismatch(
            f"spec_mismatch: {view.name} has rows of {sorted({len(state) for state in known})}"
            f" bytes, this version's have {view.row_bytes}. Not evaluated."
            " Use the version of rankstream that runs the features service."
        )
    rows: Rows = np.frombuffer(b"".join(known), view.dtype)
    return rows


def evaluated(states: pd.DataFrame) -> pd.DataFrame:
    """`snapshot` of each row: columns user_state__state and so on, and as_of_ms."""
    user, item, category, query, location = (
        _rows(states[f"{view.name}__{FEATURE}"], view) for view in ENTITY_OF
    )
    vectors = snapshot(
        user,
        item,
        category,
        np.stack([query, location], axis=1),
        states["as_of_ms"].to_numpy(np.int64),
    )
    return pd.DataFrame(vectors, columns=list(spec.NAMES))


def evaluate(states: pd.DataFrame) -> pd.DataFrame:
    """What Feast's registry keeps: source text, run where only pandas is known."""
    from pipelines.features.definitions import evaluated

    return evaluated(states)


def definitions(offline: str) -> list[Any]:
    """Everything to register. `offline` is the folder of the views' history."""
    views = [_view(view, entity, offline) for view, entity in ENTITY_OF.items()]
    request = RequestSource(name="request", schema=[Field(name="as_of_ms", dtype=Int64)])
    ranker_features = OnDemandFeatureView(
        name="ranker_features",
        sources=[*views, request],
        schema=[Field(name=name, dtype=Float32) for name in spec.NAMES],
        mode="pandas",
        # Not through Feast's decorator: it looks for the source in the main module's file.
        feature_transformation=PandasTransformation(
            udf=evaluate, udf_string=inspect.getsource(evaluate)
        ),
        description=f"features.snapshot, spec {spec.SPEC_ID}",
    )
    service = FeatureService(
        name="ranker",
        features=[ranker_features],
        tags={"spec_id": spec.SPEC_ID},
        description="What a ranker scores, in order of features.spec.NAMES",
    )
    return [*ENTITY_OF.values(), *views, request, ranker_features, service]
