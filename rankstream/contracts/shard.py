"""Which items one process holds, when several share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

SHARDS_MAX: Final = 64


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of all items, by the hash of their ids: number 0 to `of` - 1."""

    number: int = 0
    of: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether it is of all items."""
        return self.of == 1

    def holds(self, item: int) -> bool:
        """Whether the item of an id64 belongs to it.

        >>> [Shard(number, 3).holds(7) for number in range(3)]
        [False, True, False]
        """
        return item % self.of == self.number

    def rows(self, items: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Places of its items among those of a table, ascending; `items`: id64, shape (m,)."""
        return np.flatnonzero(items % np.uint64(self.of) == self.number).astype(np.int64)


WHOLE: Final = Shard()
