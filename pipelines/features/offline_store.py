"""Feast's offline store over the lake: point-in-time joins by `asof`, rows by DuckDB.

Feast finds the two classes by their names: `AsofOfflineStore`, and the same with `Config`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import duckdb
import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import (
    OfflineStore,
    RetrievalJob,
    RetrievalMetadata,
)
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from pipelines.features.asof import MEMORY, THREADS, History, asof_join
from rankstream.errors import InvalidRequest

TYPE: Final = "pipelines.features.offline_store.AsofOfflineStore"


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """DuckDB's limits; past `memory` it writes to a temporary folder."""

    type: Literal["pipelines.features.offline_store.AsofOfflineStore"] = TYPE
    memory: str = MEMORY
    threads: int = THREADS


class ArrowJob(RetrievalJob):
    """A result that is computed when it is asked for, as an Arrow table."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        *,
        on_demand: Sequence[OnDemandFeatureView] = (),
        full_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute = compute
        self._on_demand = list(on_demand)
        self._full_names = full_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are called view__feature."""
        return self._full_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast evaluates on the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._compute().to_pandas()


class AsofOfflineStore(OfflineStore):
    """Reads views whose batch source is Parquet; it writes none: `backfill` does."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **unknown: Any,
    ) -> RetrievalJob:
        """The entities' rows, in their order, with the features as they were at each row's time.

        Raises: InvalidRequest: the entities are not a DataFrame, or an option is not known.
        """
        if not isinstance(entity_df, pd.DataFrame) or any(unknown.values()):
            raise InvalidRequest(
                f"invalid_request: get_historical_features of {type(entity_df).__name__} with"
                f" {sorted(unknown)}. Nothing was joined. Pass a DataFrame of entities and times."
            )
        schema = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
        time = infer_event_timestamp_from_entity_df(schema)
        histories = [_history(view, feature_refs, full_feature_names) for view in feature_views]
        entities = pa.Table.from_pandas(entity_df, preserve_index=False)
        store = config.offline_store
        return ArrowJob(
            lambda: asof_join(
                entities, time, histories, memory=store.memory, threads=store.threads
            ),
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=sorted(set(entity_df.columns) - {time}),
                min_event_timestamp=entity_df[time].min(),
                max_event_timestamp=entity_df[time].max(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each entity in [start_date, end_date]: what `materialize` writes."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        order = [timestamp_field, *filter(None, [created_timestamp_column])]
        newest = (
            f" QUALIFY row_number() OVER (PARTITION BY {_names(join_key_columns)}"
            f" ORDER BY {', '.join(f'{_names([name])} DESC' for name in order)}) = 1"
        )
        span = (start_date, end_date)
        return ArrowJob(
            lambda: _select(config, data_source, columns, timestamp_field, span, newest)
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows in [start_date, end_date]; without an end, all there are."""
        created = filter(None, [created_timestamp_column])
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, *created]
        span = (
            start_date or datetime.min.replace(tzinfo=UTC),
            end_date or datetime.max.replace(tzinfo=UTC),
        )
        return ArrowJob(lambda: _select(config, data_source, columns, timestamp_field, span, ""))


def _history(view: FeatureView, feature_refs: list[str], full_names: bool) -> History:
    name = str(view.projection.name_alias or view.name)
    features = [ref.split(":")[1] for ref in feature_refs if ref.split(":")[0] == name]
    source = _source(view.batch_source, view.name)
    join = view.projection.join_key_map
    return History(
        path=str(source.path),
        keys={column.name: join.get(column.name, column.name) for column in view.entity_columns},
        time=source.timestamp_field,
        features={feature: f"{name}__{feature}" if full_names else feature for feature in features},
        ttl=view.ttl or timedelta(0),
        created=source.created_timestamp_column or "",
    )


def _source(source: DataSource | None, of: str) -> FileSource:
    if not isinstance(source, FileSource):
        raise InvalidRequest(
            f"invalid_request: {of} has no FileSource. Nothing was read."
            " Give the view a batch source of Parquet files."
        )
    return source


def _select(
    config: RepoConfig,
    source: DataSource,
    columns: list[str],
    time: str,
    span: tuple[datetime, datetime],
    rest: str,
) -> pa.Table:
    store = config.offline_store
    limits = {"memory_limit": store.memory, "threads": store.threads}
    with duckdb.connect(config=limits) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        start, end = (moment.replace(tzinfo=moment.tzinfo or UTC) for moment in span)
        query = (
            f"SELECT {_names(columns)} FROM read_parquet($path)"
            f" WHERE {_names([time])} BETWEEN $start AND $end{rest}"
        )
        values = {"path": str(_source(source, source.name).path), "start": start, "end": end}
        return connection.sql(query, params=values).to_arrow_table()


def _names(columns: list[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
