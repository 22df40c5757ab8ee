"""Which rows are within a distance of a place, at a cost that goes by the rows near it.

Rows are sorted by their H3 cell. Numbers of H3 are hierarchical: all cells below a coarser one are
a range of numbers, so the rows below a disk of coarse cells are some ranges of the sorted rows. The
disk is as coarse as the radius allows; distances are computed for the rows in it alone, as chords
between points of the unit sphere: in float32 that is exact to a metre.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import h3.api.numpy_int as h3
import numpy as np
import numpy.typing as npt

from rankstream.candidates.item_columns import CELL_RESOLUTION, NO_CELL, on_sphere
from rankstream.contracts.filter import GeoRadius
from rankstream.contracts.subset import Rows

EARTH_KM: Final = 6_371.0088
_MOVED_MAX: Final = 10_000
_AT_ONCE: Final = 8_192  # points; what is made of them stays in the cache
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

    def __init__(self, cell: Cells, place: Floats) -> None:
        """Of m rows: `cell`, shape (m,), and `place` on the unit sphere, shape (m, 3), nan for a
        row without one, whose cell is NO_CELL.
        """
        self._cell, self._place = cell, place
        self._moved: set[int] = set()
        self._sort()

    def _sort(self) -> None:
        placed = np.flatnonzero(self._cell != NO_CELL)
        self._rows = placed[np.argsort(self._cell[placed], kind="stable")]
        # Copies: a disk reads them in their order.
        self._sorted, self._sorted_place = self._cell[self._rows], self._place[self._rows]
        self._moved.clear()

    def moved(self, row: int) -> None:
        """A row has another place than before, or none any more."""
        self._moved.add(row)
        if len(self._moved) > _MOVED_MAX:
            self._sort()

    def within(self, near: GeoRadius) -> Rows:
        """The rows within the radius, ascending."""
        found = [
            self._rows[start:end][within(near, self._sorted_place[start:end])]
            for start, end in self._spans(near)
        ]
        rows = np.concatenate([np.empty(0, np.int64), *found])
        if self._moved:
            moved = np.fromiter(self._moved, np.int64, len(self._moved))
            here = moved[within(near, self._place[moved])]
            rows = np.concatenate([rows[~np.isin(rows, moved)], here])
        return np.sort(rows)

    def _spans(self, near: GeoRadius) -> Iterator[tuple[int, int]]:
        """Where in the sorted rows those near the place are, and some more."""
        if near.radius_km > _DISK_KM_MAX:
            return iter([(0, len(self._rows))])
        low, high = (np.sort(cells) for cells in disk(near))
        starts, ends = (
            np.searchsorted(self._sorted, low),
            np.searchsorted(self._sorted, high, "right"),
        )
        used = starts < ends
        starts, ends = starts[used], ends[used]
        # Most cells lie beside another one of the disk; what lies together is read together.
        apart = starts[1:] != ends[:-1]
        starts = starts[:1].tolist() + starts[1:][apart].tolist()
        return zip(starts, ends[:-1][apart].tolist() + ends[-1:].tolist(), strict=True)


def within(near: GeoRadius, place: Floats) -> npt.NDArray[np.bool_]:
    """Which points of the unit sphere, shape (n, 3), are within a radius; nan is not."""
    centre = np.array(on_sphere(near.latitude, near.longitude), np.float32)
    # The angle of half of the earth has the longest chord.
    angle = min(near.radius_km / EARTH_KM, math.pi)
    square = np.float32((2 * math.sin(angle / 2)) ** 2)
    closer = np.empty(len(place), bool)
    for start in range(0, len(place), _AT_ONCE):
        away = place[start : start + _AT_ONCE] - centre
        closer[start : start + _AT_ONCE] = np.einsum("ij,ij->i", away, away) <= square
    return closer


def closeness(near: GeoRadius, place: Floats) -> Floats:
    """1 - distance / radius of points of the unit sphere, shape (n, 3); below 0 is outside."""
    centre = np.array(on_sphere(near.latitude, near.longitude), np.float32)
    away = place - centre
    chord = np.sqrt(np.einsum("ij,ij->i", away, away))
    km = 2 * EARTH_KM * np.arcsin(np.minimum(chord / 2, 1))
    close: Floats = (1 - km / near.radius_km).astype(np.float32)
    return close


def disk(near: GeoRadius) -> tuple[Cells, Cells]:
    """Ranges of cells of CELL_RESOLUTION, ends included, that cover a circle and some more."""
    resolution, rings = _coarsest(near.radius_km)
    centre = h3.latlng_to_cell(near.latitude, near.longitude, resolution)
    cells: Cells = np.asarray(h3.grid_disk(centre, rings), np.uint64)
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
