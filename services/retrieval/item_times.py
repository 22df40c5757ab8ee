"""When each item was last updated, so that an older update never takes the place of a newer one."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

RECENT_MAX: Final = 65_536


class ItemTimes:
    """Newest update of every item by id64: 16 bytes each, and a map of the latest RECENT_MAX."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._hashes: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._times: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Items known; one that was updated lately may count twice."""
        return len(self._hashes) + len(self._recent)

    def advance(self, item: int, updated_ms: int) -> bool:
        """Note an update and return True; False, and nothing noted, if a newer one is known.

        Of two updates with one time the later in the log wins, as in the features service.
        """
        if updated_ms < self._newest_ms(item):
            return False
        self._recent[item] = updated_ms
        if len(self._recent) > RECENT_MAX:
            self._settle()
        return True

    def _newest_ms(self, item: int) -> int:
        known = self._recent.get(item)
        if known is not None:
            return known
        at = int(np.searchsorted(self._hashes, np.uint64(item)))
        found = at < len(self._hashes) and int(self._hashes[at]) == item
        return int(self._times[at]) if found else 0

    def _settle(self) -> None:
        """Move the map into the sorted columns; its entries are the newer ones."""
        count = len(self._recent)
        hashes = np.concatenate([np.fromiter(self._recent, np.uint64, count), self._hashes])
        times = np.concatenate([np.fromiter(self._recent.values(), np.int64, count), self._times])
        self._hashes, first = np.unique(hashes, return_index=True)
        self._times = times[first]
        self._recent.clear()
