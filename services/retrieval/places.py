"""Which rows are within a distance of a place, at a cost that goes by the rows near it.

Rows are sorted by their H3 cell. Numbers of H3 are hierarchical: all cells below a coarser one are
a range of numbers, so the rows below a disk of coarse cells are some ranges of the sorted rows. The
disk is as coarse as the radius allows; distances are computed for the rows in it alone.
"""

from __future__ import annotations

import math
from typing import Final

import h3
import numpy as np
import numpy.typing as npt

from rankstream.contracts.filter import GeoRadius
from rankstream.contracts.subset import Rows
from services.retrieval.item_columns import CELL_RESOLUTION, NO_CELL

EARTH_KM: Final = 6_371.0088
_MOVED_MAX: Final = 10_000
# Rings of a disk at most: 8 rings are 217 cells.
_RINGS_MAX: Final = 8
# Cells differ in size: the smallest edges of a resolution are about so much of the mean.
_EDGE_MIN: Final = 0.7
# Above it the disk would be much of the earth: all rows with a place are looked at.
_DISK_KM_MAX: Final = 2_000.0
_DIGIT_BITS: Final = 3
_RESOLUTIONS: Final = 15
_RESOLUTION_SHIFT: Final = 52

Floats = npt.NDArray[np.float32]
Cells = npt.NDArray[np.uint64]


class Places:
    """Rows by place; the columns are the caller's, who tells which of them changed."""

    def __init__(self, cell: Cells, latitude: Floats, longitude: Floats) -> None:
        """Columns of m rows, shape (m,) each; a row of NO_CELL has no place."""
        self._cell, self._latitude, self._longitude = cell, latitude, longitude
        self._moved: set[int] = set()
        self._sort()

    def _sort(self) -> None:
        placed = np.flatnonzero(self._cell != NO_CELL)
        self._rows = placed[np.argsort(self._cell[placed], kind="stable")]
        self._sorted = self._cell[self._rows]
        self._moved.clear()

    def moved(self, row: int) -> None:
        """A row has another place than before, or none any more."""
        self._moved.add(row)
        if len(self._moved) > _MOVED_MAX:
            self._sort()

    def within(self, near: GeoRadius) -> Rows:
        """The rows within the radius, ascending."""
        rows = self._candidates(near)
        if self._moved:
            rows = np.union1d(rows, np.fromiter(self._moved, np.int64, len(self._moved)))
        away = distance_km(
            near.latitude, near.longitude, self._latitude[rows], self._longitude[rows]
        )
        return np.sort(rows[away <= near.radius_km])  # nan, no place, is not

    def _candidates(self, near: GeoRadius) -> Rows:
        if near.radius_km > _DISK_KM_MAX:
            return self._rows
        low, high = disk(near)
        starts, ends = (
            np.searchsorted(self._sorted, low),
            np.searchsorted(self._sorted, high, "right"),
        )
        parts = [self._rows[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.concatenate([np.empty(0, np.int64), *parts])


def disk(near: GeoRadius) -> tuple[Cells, Cells]:
    """Ranges of cells of CELL_RESOLUTION, ends included, that cover a circle and some more."""
    resolution, rings = _coarsest(near.radius_km)
    centre = h3.latlng_to_cell(near.latitude, near.longitude, resolution)
    cells = np.array([h3.str_to_int(cell) for cell in h3.grid_disk(centre, rings)], np.uint64)
    shift = np.uint64(_RESOLUTION_SHIFT)
    low = cells & ~(np.uint64(15) << shift) | np.uint64(CELL_RESOLUTION) << shift
    high = low.copy()
    for finer in range(resolution + 1, CELL_RESOLUTION + 1):
        shift = np.uint64((_RESOLUTIONS - finer) * _DIGIT_BITS)
        low &= ~(np.uint64(7) << shift)  # digit 0
        high &= ~(np.uint64(1) << shift)  # digit 7, which is unused, becomes 6
    return low, high


def _coarsest(radius_km: float) -> tuple[int, int]:
    """The finest resolution whose disk of few rings covers the radius, and the rings.

    A ring is 1.5 edges wide at its narrowest; one more is for the place in the middle cell, and one
    because cells stick out a little over those that they are counted below.
    """
    for resolution in range(CELL_RESOLUTION, -1, -1):
        edge_km = _EDGE_MIN * h3.average_hexagon_edge_length(resolution, unit="km")
        rings = math.ceil(radius_km / (1.5 * edge_km)) + 2
        if rings <= _RINGS_MAX:
            return resolution, rings
    raise AssertionError(f"{radius_km} km is above _DISK_KM_MAX")


def distance_km(
    latitude: float, longitude: float, latitudes: Floats, longitudes: Floats
) -> npt.NDArray[np.float64]:
    """Great-circle distances from one place, in degrees, to others, shape (n,), by haversines."""
    here, there = math.radians(latitude), np.radians(latitudes.astype(np.float64))
    across = np.radians(longitudes.astype(np.float64) - longitude)
    half = (
        np.sin((there - here) / 2) ** 2 + math.cos(here) * np.cos(there) * np.sin(across / 2) ** 2
    )
    away: npt.NDArray[np.float64] = 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
    return away
