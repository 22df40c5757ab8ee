"""A set of rows of a table: those that may come back from a search."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

WORD: Final = 64


def packed(flags: npt.NDArray[np.bool_]) -> Words:
    """Bits of flags, shape (m,): row r is bit r % 64 of word r // 64; bits behind m are 0.

    >>> packed(np.array([True, False, True])).tolist()
    [5]
    """
    words = np.zeros(-(-len(flags) // WORD), np.uint64)
    bits = np.packbits(flags, bitorder="little")
    words.view(np.uint8)[: len(bits)] = bits
    return words


def set_bit(words: Words, row: int, value: bool) -> None:
    """Change one row of packed bits in place."""
    bit = np.uint64(1 << row % WORD)
    words[row // WORD] = words[row // WORD] | bit if value else words[row // WORD] & ~bit


class Subset:
    """Rows of a table of `size` rows, as bits or as a list: whichever is at hand makes the other.

    Bits are not copied: a subset is of use until they change.
    """

    def __init__(
        self,
        size: int,
        *,
        words: Words | None = None,
        rows: Rows | None = None,
        count: int | None = None,
    ) -> None:
        """One of `words`, as `packed` makes them, or `rows`, ascending, each once.

        Args:
            count: of the rows, if it is known.
        """
        assert (words is None) != (rows is None)
        self.size = size
        self._words = words
        self._rows = rows
        self._count = len(rows) if rows is not None else count

    @cached_property
    def count(self) -> int:
        """How many rows there are."""
        if self._count is not None:
            return self._count
        return int(np.bitwise_count(self.words).sum(dtype=np.int64))

    @cached_property
    def words(self) -> Words:
        """As bits, shape (size / 64, rounded up,)."""
        if self._words is not None:
            return self._words
        words = np.zeros(-(-self.size // WORD), np.uint64)
        if self._rows is not None and len(self._rows):
            at, bits = self._rows // WORD, np.uint64(1) << (self._rows % WORD).astype(np.uint64)
            first = np.flatnonzero(np.diff(at, prepend=-1))
            words[at[first]] = np.bitwise_or.reduceat(bits, first)
        return words

    @cached_property
    def rows(self) -> Rows:
        """As a list, ascending."""
        if self._rows is not None:
            return self._rows
        # Only bytes that are not empty are spread out, so a small subset costs little.
        used = np.flatnonzero(self.words)
        part = self.words[used].view(np.uint8)
        full = np.flatnonzero(part)
        place = np.flatnonzero(np.unpackbits(part[full], bitorder="little"))
        at = full[place // 8]
        return (used[at // 8] * WORD + at % 8 * 8 + place % 8).astype(np.int64)

    def holds(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which of `rows`, each in [0, size), are in it."""
        if self._rows is not None:
            place = np.searchsorted(self._rows, rows)
            place[place == len(self._rows)] = 0
            return self._rows[place] == rows if len(self._rows) else np.zeros(len(rows), bool)
        bits = self.words[rows // WORD] >> (rows % WORD).astype(np.uint64)
        return (bits & np.uint64(1)).astype(bool)

    def counts(self, bounds: Rows) -> Rows:
        """How many rows are in [bounds[i], bounds[i + 1]), shape (n,).

        Args:
            bounds: shape (n + 1,), ascending, in [0, size].
        """
        if self._rows is not None:
            return np.diff(np.searchsorted(self._rows, bounds))
        words = self.words
        before = np.zeros(len(words) + 1, np.int64)
        np.cumsum(np.bitwise_count(words), out=before[1:])
        word, bit = np.divmod(bounds, WORD)
        inside = words[np.minimum(word, len(words) - 1)] & (
            (np.uint64(1) << bit.astype(np.uint64)) - np.uint64(1)
        )
        return np.diff(before[word] + np.bitwise_count(inside))

    def without(self, rows: Rows) -> Subset:
        """The same but for these rows, each in [0, size)."""
        if self._rows is not None:
            return Subset(self.size, rows=np.setdiff1d(self._rows, rows))
        words = self.words.copy()
        np.bitwise_and.at(words, rows // WORD, ~(np.uint64(1) << (rows % WORD).astype(np.uint64)))
        return Subset(self.size, words=words)


def whole(size: int) -> Subset:
    """All rows of a table."""
    return Subset(size, words=packed(np.ones(size, bool)))
