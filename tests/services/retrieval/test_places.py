"""Rows near a place, against distances to all of them."""

from __future__ import annotations

import math

import h3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankstream.contracts.filter import GeoRadius
from services.retrieval.item_columns import CELL_RESOLUTION, NO_CELL
from services.retrieval.places import Places, distance_km

LATITUDES = st.sampled_from([90.0, -90.0, 0.0, 89.99, 48.137]) | st.floats(-90, 90)
LONGITUDES = st.sampled_from([180.0, -180.0, 179.999, 0.0, 11.575]) | st.floats(-180, 180)


def columns(
    places: list[tuple[float, float] | None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, latitude and longitude of rows, as item columns hold them."""
    known = [(math.nan, math.nan) if place is None else place for place in places]
    cells = [
        NO_CELL if place is None else h3.str_to_int(h3.latlng_to_cell(*place, CELL_RESOLUTION))
        for place in places
    ]
    degrees = np.array(known, np.float32).reshape(len(known), 2)
    return np.array(cells, np.uint64), degrees[:, 0].copy(), degrees[:, 1].copy()


def around(near: GeoRadius, seed: int) -> list[tuple[float, float] | None]:
    """Places within three radii, and some without a place."""
    rng = np.random.default_rng(seed)
    spread = math.degrees(near.radius_km / 6_371) * 3
    latitude = np.clip(near.latitude + rng.uniform(-spread, spread, 300), -90, 90)
    wide = spread / np.maximum(np.cos(np.radians(latitude)), 1e-3)
    longitude = near.longitude + rng.uniform(-1, 1, 300) * np.minimum(wide, 180)
    longitude = (longitude + 180) % 360 - 180
    found: list[tuple[float, float] | None] = list(
        zip(latitude.tolist(), longitude.tolist(), strict=True)
    )
    found[::10] = [None] * len(found[::10])
    return found


@given(LATITUDES, LONGITUDES, st.floats(0.05, 20_000), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_all_rows_in_the_radius_are_found_and_no_other(
    latitude: float, longitude: float, radius_km: float, seed: int
) -> None:
    near = GeoRadius(latitude=latitude, longitude=longitude, radius_km=radius_km)
    cell, latitudes, longitudes = columns(around(near, seed))

    rows = Places(cell, latitudes, longitudes).within(near)

    away = distance_km(latitude, longitude, latitudes, longitudes)
    assert rows.tolist() == np.flatnonzero(away <= radius_km).tolist()


def test_rows_that_moved_are_where_they_are_now() -> None:
    near = GeoRadius(latitude=48.0, longitude=11.0, radius_km=5)
    cell, latitude, longitude = columns([(48.0, 11.0), (10.0, 10.0), None, (48.01, 11.0)])
    places = Places(cell, latitude, longitude)
    for row, (cells, one, other) in zip(
        (0, 1, 2), zip(*columns([(0.0, 0.0), (48.0, 11.01), None]), strict=True), strict=True
    ):
        cell[row], latitude[row], longitude[row] = cells, one, other
        places.moved(row)

    assert places.within(near).tolist() == [1, 3]


@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_distances_are_those_of_h3(north: float, east: float, south: float, west: float) -> None:
    there = np.array([south], np.float32), np.array([west], np.float32)

    away = distance_km(north, east, *there)

    expected = h3.great_circle_distance((north, east), (float(there[0][0]), float(there[1][0])))
    assert away[0] == pytest.approx(expected, rel=1e-5, abs=1e-3)
