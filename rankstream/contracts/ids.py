"""Hashes and partitions of ids.

Ids are text outside. Inside a packed row an id is its 64-bit hash; state is
keyed by the text itself, so two ids never share counters. A hash collision can
at worst make one recent action look like another: at 10 million items the
chance that any two collide is 3e-6.
"""

from __future__ import annotations

import mmh3
from uuid_utils import uuid7


def id64(text: str) -> int:
    """Unsigned 64-bit hash of an id: first half of MurmurHash3 x64 128, seed 0."""
    return mmh3.hash64(text, signed=False)[0]


def id32(hash64: int) -> int:
    """The lower half of an id64: of a rated item, where a user's row holds very many.

    Of 20,000 items, as many as a rating table has, some two share one with a chance of 5 %.
    """
    return hash64 & 0xFFFFFFFF


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562) as text: ordered by the time it was made."""
    return str(uuid7())


def murmur2(key: bytes) -> int:
    """Signed 32-bit MurmurHash2 with the seed of Kafka's Java clients.

    Source: org.apache.kafka.common.utils.Utils.murmur2.
    """
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    length = len(key)
    h = (0x9747B28C ^ length) & mask
    end = length & ~3
    for i in range(0, end, 4):
        k = (int.from_bytes(key[i : i + 4], "little") * m) & mask
        k = ((k ^ (k >> 24)) * m) & mask
        h = ((h * m) & mask) ^ k
    if tail := key[end:]:
        h = ((h ^ int.from_bytes(tail, "little")) * m) & mask
    h = ((h ^ (h >> 13)) * m) & mask
    h ^= h >> 15
    return h - (1 << 32) if h & 0x80000000 else h


def partition_of(key: str, partitions: int) -> int:
    """The partition where Java, librdkafka (murmur2) and aiokafka clients put this key.

    >>> partition_of("user-1", 4) == partition_of("user-1", 4)
    True
    """
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
