"""What retrieval knows of items, by id: the newest update of each, whatever index there is."""

from __future__ import annotations

import math
from typing import Any, Final

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt

from rankstream.contracts.ids import id64
from rankstream.pb.events_pb2 import Item

RECENT_MAX: Final = 65_536
NO_CATEGORY: Final = 0
NO_CELL: Final = 0
CELL_RESOLUTION: Final = 9  # of H3: hexagons with edges of 200 m

# category: number of the name. price: nan if unknown. place: on the unit sphere, nan if unknown.
# cell: the place's of H3, or NO_CELL.
FACTS: Final = np.dtype(
    [
        ("item", "<u8"),
        ("updated_ms", "<i8"),
        ("cell", "<u8"),
        ("category", "<i4"),
        ("price", "<f4"),
        ("place", "<f4", (3,)),
        ("withdrawn", "?"),
    ]
)
_NOWHERE: Final = (math.nan, math.nan, math.nan)
_UNKNOWN: Final = (0, 0, NO_CELL, NO_CATEGORY, math.nan, _NOWHERE, False)

Facts = npt.NDArray[np.void]


class ItemColumns:
    """Facts of every item by id64: 45 bytes each, and a map of the latest RECENT_MAX."""

    def __init__(self) -> None:
        self._recent: dict[int, tuple[Any, ...]] = {}
        self._settled: Facts = np.empty(0, FACTS)
        self._categories: dict[str, int] = {"": NO_CATEGORY}
        self._names: list[str] = [""]

    def __len__(self) -> int:
        """Items known; one that was updated lately may count twice."""
        return len(self._settled) + len(self._recent)

    def learn(self, item: Item) -> Facts | None:
        """Note an update and return its FACTS; None, and nothing noted, if a newer one is known.

        Of two updates with one time the later in the log wins, as in the features service.
        """
        key = id64(item.item_id)
        if item.updated_ms < self._newest_ms(key):
            return None
        number = self._categories.setdefault(item.category, len(self._names))
        if number == len(self._names):
            self._names.append(item.category)
        place, cell = _NOWHERE, NO_CELL
        if "latitude" in item.attributes and "longitude" in item.attributes:
            latitude, longitude = item.attributes["latitude"], item.attributes["longitude"]
            place = on_sphere(latitude, longitude)
            cell = h3.latlng_to_cell(latitude, longitude, CELL_RESOLUTION)
        price = item.attributes.get("price", math.nan)
        row = (key, item.updated_ms, cell, number, price, place, item.withdrawn)
        self._recent[key] = row
        if len(self._recent) > RECENT_MAX:
            self._settle()
        return np.array([row], FACTS)

    def category(self, name: str) -> int | None:
        """The number of a category; None: no item has had it."""
        return self._categories.get(name)

    def name(self, number: int) -> str:
        """The category that has a number."""
        return self._names[number]

    def frozen(self) -> tuple[Facts, Facts]:
        """All that is known now, for `facts_of`; what is learned later changes nothing in it."""
        recent = np.array(list(self._recent.values()), FACTS)
        return self._settled, recent[np.argsort(recent["item"])]

    def _newest_ms(self, item: int) -> int:
        known = self._recent.get(item)
        if known is not None:
            return int(known[1])
        at = int(np.searchsorted(self._settled["item"], np.uint64(item)))
        found = at < len(self._settled) and int(self._settled["item"][at]) == item
        return int(self._settled["updated_ms"][at]) if found else 0

    def _settle(self) -> None:
        """Move the map into the sorted columns; its entries are the newer ones."""
        if not self._recent:
            return
        together = np.concatenate([np.array(list(self._recent.values()), FACTS), self._settled])
        self._settled = together[np.unique(together["item"], return_index=True)[1]]
        self._recent.clear()


def facts_of(known: tuple[Facts, Facts], items: npt.NDArray[np.uint64]) -> Facts:
    """FACTS of each id64, shape (n,); of an unknown one `item` is 0.

    Args:
        known: parts in order of `item`, the later one counts.
    """
    found = np.full(len(items), np.array(_UNKNOWN, FACTS))
    for part in known:
        if len(part):
            place = np.searchsorted(part["item"], items)
            place[place == len(part)] = 0
            there = part["item"][place] == items
            found[there] = part[place[there]]
    return found


def on_sphere(latitude: float, longitude: float) -> tuple[float, float, float]:
    """The point of the unit sphere at a place in degrees."""
    north, east = math.radians(latitude), math.radians(longitude)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)
