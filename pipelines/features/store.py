"""A Feast store over our Redis: what `python -m pipelines.features apply` registers into."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from feast import FeatureStore, RepoConfig

from pipelines.features.definitions import definitions
from pipelines.features.offline_store import AsofOfflineStoreConfig
from pipelines.features.online_store import StampedOnlineStoreConfig
from rankstream.adapters.redis_rows import PROJECT
from rankstream.errors import InvalidRequest

KEY_VERSION = 3  # of Feast's entity keys; adapters.redis_rows writes this one


def connection_string(redis_url: str) -> str:
    """Feast's way to say where Redis is.

    >>> connection_string("redis://127.0.0.1:6379/2")
    '127.0.0.1:6379,db=2'

    Raises: InvalidRequest: not a redis:// address.
    """
    parts = urlsplit(redis_url)
    if parts.scheme != "redis" or not parts.hostname:
        raise InvalidRequest(
            f"invalid_request: {redis_url!r} is not an address of Redis. Nothing was done."
            " Write redis://host:port/database."
        )
    options = [f"db={parts.path.strip('/') or '0'}"]
    if parts.password:
        options.append(f"password={unquote(parts.password)}")
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *options])


def open_store(*, redis_url: str, registry: Path) -> FeatureStore:
    """The store; `registry` is the file that holds the definitions once they are applied."""
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(registry),
        online_store=StampedOnlineStoreConfig(connection_string=connection_string(redis_url)),
        offline_store=AsofOfflineStoreConfig(),
        entity_key_serialization_version=KEY_VERSION,
    )
    return FeatureStore(config=config)


def apply(*, redis_url: str, registry: Path, offline: Path) -> FeatureStore:
    """Register every definition; safe to call again. Rows in Redis are not touched."""
    registry.parent.mkdir(parents=True, exist_ok=True)
    store = open_store(redis_url=redis_url, registry=registry)
    store.apply(definitions(str(offline.absolute())))
    return store
