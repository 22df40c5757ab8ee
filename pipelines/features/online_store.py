"""Feast's Redis, with one rule more: a row never replaces one that knows more of the log.

The stream writes rows with a stamp: how far it had folded the log (`features.rows`). A row that
comes through Feast is written only if the stored one is behind it: absent, or of a smaller stamp.
A row without a stamp (an item's, from a backfill) replaces none that has one. Compared and written
by a script inside Redis, so that no write of the stream comes between.

Feast finds the two classes by their names: `StampedOnlineStore`, and the same with `Config`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from feast import FeatureView, utils
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp

from rankstream.adapters.redis_rows import FEATURE, VIEWS, View, entity_key
from rankstream.errors import InvalidRequest

_Name: TypeAlias = Literal["pipelines.features.online_store.StampedOnlineStore"]
TYPE: Final[_Name] = "pipelines.features.online_store.StampedOnlineStore"

# entity, features, event time, created time
Write: TypeAlias = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

# KEYS: the entity's hash. ARGV: field, value, time field, time, bytes before the row, bytes before
# the row's last_ms. 1: written; 0: the stored row stays.
_SCRIPT: Final = """
local function stamp(value)
  local at = ARGV[5] + 1
  local partition, offset, items = struct.unpack('<i4i8i8', value, at)
  return partition, offset, items, (struct.unpack('<i8', value, at + ARGV[6]))
end
local function behind(held, value)
  if not held then return true end
  if #held ~= #value then return false end
  local p, o, i, t = stamp(held)
  local np, no, ni, nt = stamp(value)
  local stamped, nstamped = o >= 0 or i >= 0, no >= 0 or ni >= 0
  if stamped ~= nstamped then return nstamped end
  if not stamped or p ~= np then return t < nt end
  return no >= o and ni >= i and (no > o or ni > i)
end
if behind(redis.call('HGET', KEYS[1], ARGV[1]), ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
  return 1
end
return 0
"""


class StampedOnlineStoreConfig(RedisOnlineStoreConfig):
    """Settings of Feast's Redis store."""

    # Feast finds the store by this name.
    type: _Name = TYPE  # type: ignore[assignment]  # the class above allows Feast's names only


class StampedOnlineStore(RedisOnlineStore):
    """Reads as Feast's own; writes views of packed rows by the rule above, and no other view."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Write],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows that are ahead of the stored ones; `progress` hears how many were.

        Raises: InvalidRequest: the view does not hold packed rows.
        """
        view = next((view for view in VIEWS if view.name == table.name), None)
        if view is None:
            raise InvalidRequest(
                f"invalid_request: view {table.name} has no packed rows, and only those can be"
                " told apart by their stamps. Nothing was written. Use a store of its own."
            )
        client = self._get_client(config.online_store)
        script = client.register_script(_SCRIPT)
        with client.pipeline(transaction=False) as pipe:
            for entity, values, time, _ in data:
                key = entity_key(view, entity.entity_values[0].string_val)
                script(keys=[key], args=_arguments(view, values, time), client=pipe)
            written = sum(pipe.execute())
        if progress:
            progress(written)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Write],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same off the event loop."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)


def _arguments(view: View, values: dict[str, Value], time: datetime) -> list[bytes | int]:
    stamp = Timestamp()
    stamp.FromDatetime(utils.make_tzaware(time))
    fields = view.dtype.fields
    assert fields is not None
    return [
        view.field,
        values[FEATURE].SerializeToString(),
        f"_ts:{view.name}".encode(),
        stamp.SerializeToString(),
        len(view.value_head),
        fields["last_ms"][1],
    ]
