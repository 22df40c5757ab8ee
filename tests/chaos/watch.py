"""What Redis says of the workers: how far each partition is committed, and by whom."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import redis

from rankstream import topics
from rankstream.adapters.redis_rows import offset_key
from services.features.commit import parse_offsets

USERS: Final = "users"
ITEMS: Final = "items"
KEYS_PER_READ: Final = 1_000
PARTITIONS: Final = topics.EVENTS.partitions


class Commit(NamedTuple):
    """Offsets to go on from, and who wrote them."""

    offsets: tuple[int, ...]
    owner: str

    @property
    def first(self) -> int:
        """Of the stage's first topic; 0: never committed."""
        return self.offsets[0] if self.offsets else 0


Commits = Mapping[int, Commit]
NEVER = Commit((), "")


def commits(client: redis.Redis, stage: str) -> Commits | None:
    """By partition; None while Redis does not answer."""
    keys = [offset_key(stage, partition) for partition in range(PARTITIONS)]
    try:
        values = client.mget(keys)
    except redis.RedisError:
        return None
    assert isinstance(values, list)
    return {p: Commit(*parse_offsets(value)) for p, value in enumerate(values)}


def hashes(client: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    """Every hash in Redis: the rows, and nothing else has that type here."""
    keys = [key for key in client.scan_iter(count=KEYS_PER_READ, _type="HASH")]
    found: dict[bytes, dict[bytes, bytes]] = {}
    for start in range(0, len(keys), KEYS_PER_READ):
        part = keys[start : start + KEYS_PER_READ]
        with client.pipeline(transaction=False) as pipeline:
            for key in part:
                pipeline.hgetall(key)
            found |= dict(zip(part, pipeline.execute(), strict=True))
    return found


@dataclass
class Recovery:
    """From a fault to the first new commit of the partitions that it hit."""

    name: str
    share: float
    detail: str
    before: Commits
    affected: Sequence[int]  # empty: any partition will do, once it has a new owner
    new_owner: bool
    started_s: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    def see(self, now: Commits) -> None:
        """Note the end, if this is it."""
        if self.seconds is not None:
            return
        moved = {
            partition
            for partition, commit in now.items()
            if commit.first > self.before.get(partition, NEVER).first
            and not (self.new_owner and commit.owner == self.before.get(partition, NEVER).owner)
        }
        if moved >= set(self.affected) if self.affected else moved:
            self.seconds = time.monotonic() - self.started_s
