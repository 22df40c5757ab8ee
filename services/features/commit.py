"""The commit of a partition: its rows and its offsets at once, by its owner only.

One key per stage and partition holds the offsets to go on from and who owns the partition. An
owner claims it by writing it, watches it, and commits rows and offsets in one transaction; a
worker that has lost the partition finds its watch broken, so it can never write again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rankstream.adapters.redis_link import RedisLink, Reply
from rankstream.adapters.redis_rows import command, offset_key
from rankstream.errors import DependencyUnavailable, Fenced

CLAIMS_MAX: Final = 20


class Fence:
    """One stage of one partition in Redis, over a connection of its own.

    After an error it is of no use any more: whether the last commit ran is unknown. Open another.
    """

    def __init__(
        self, url: str, *, stage: str, partition: int, owner: str, timeout_s: float
    ) -> None:
        assert " " not in owner, owner
        self._link = RedisLink(url, timeout_s=timeout_s, reconnect=False)
        self._name = f"{stage}[{partition}]"
        self._key = offset_key(stage, partition)
        self._owner = owner.encode()
        self._broken = False

    async def claim(self) -> tuple[int, ...]:
        """Take the partition over; the offsets to go on from, none if there never was a commit.

        Raises:
            Fenced: others keep writing.
            DependencyUnavailable: Redis does not answer.
        """
        _, stored = await self._request(self._watch(), 2)
        for _ in range(CLAIMS_MAX):
            offsets, _ = parse_offsets(stored)
            claimed, stored = await self._write((), offsets)
            if claimed:
                return offsets
        raise self._fenced(stored)

    async def commit(self, hsets: Sequence[bytes], offsets: Sequence[int]) -> None:
        """Store rows (packed HSET commands) and offsets, both or neither.

        Raises:
            Fenced: another worker has claimed the partition, or Redis was emptied; nothing stored.
            DependencyUnavailable: no answer; it may have been stored.
        """
        if self._broken:
            raise self._fenced(None)
        # Until it is known to have been stored, no second try: its watch would be a new one.
        self._broken = True
        committed, stored = await self._write(hsets, tuple(offsets))
        if not committed:
            raise self._fenced(stored)
        self._broken = False

    async def verify(self) -> None:
        """Check that the partition is ours still.

        Raises:
            Fenced: another worker has claimed it, or Redis was emptied.
            DependencyUnavailable: Redis does not answer.
        """
        (stored,) = await self._request(command(b"GET", self._key), 1)
        if stored is None or parse_offsets(stored)[1] != self._owner.decode():
            raise self._fenced(stored)

    async def close(self) -> None:
        """Close the connection; the claim stays until another's."""
        await self._link.close()

    def _watch(self) -> bytes:
        return command(b"WATCH", self._key) + command(b"GET", self._key)

    async def _write(self, hsets: Sequence[bytes], offsets: tuple[int, ...]) -> tuple[bool, Reply]:
        """One round trip: the transaction, then a new watch and what is stored now."""
        value = b" ".join([*(b"%d" % offset for offset in offsets), self._owner])
        packed = b"".join(
            [
                command(b"MULTI"),
                *hsets,
                command(b"SET", self._key, value),
                command(b"EXEC"),
                self._watch(),
            ]
        )
        replies = await self._request(packed, len(hsets) + 5)
        executed, stored = replies[-3], replies[-1]
        # Between EXEC and WATCH another may have claimed the partition: then the value differs.
        return executed is not None and stored == value, stored

    async def _request(self, packed: bytes, count: int) -> list[Reply]:
        replies = await self._link.request(packed, count)
        for reply in replies:
            inner = reply if isinstance(reply, list) else [reply]
            for one in inner:
                if isinstance(one, Exception):
                    raise DependencyUnavailable(
                        f"dependency_unavailable: Redis refused to commit {self._name}: {one}."
                        " Nothing was stored. Mend Redis."
                    )
        return replies

    def _fenced(self, stored: Reply) -> Fenced:
        return Fenced(
            f"fenced: {self._name} is {stored!r} now, this worker is {self._owner!r}."
            " Nothing was stored. Another worker owns the partition, or Redis was emptied: stop."
        )


def parse_offsets(stored: Reply) -> tuple[tuple[int, ...], str]:
    """Offsets to go on from, and the owner, as stored in the key.

    >>> parse_offsets(b"12 7 worker-1"), parse_offsets(None)
    (((12, 7), 'worker-1'), ((), ''))
    """
    if stored is None:
        return (), ""
    assert isinstance(stored, bytes), stored
    *offsets, owner = stored.decode().split(" ")
    return tuple(map(int, offsets)), owner
