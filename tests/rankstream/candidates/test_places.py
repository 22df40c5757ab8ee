"""Rows near a place, against distances to all of them."""

from __future__ import annotations

import math

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankstream.candidates.item_columns import CELL_RESOLUTION, NO_CELL, on_sphere
from rankstream.candidates.places import Places, closeness
from rankstream.contracts.filter import GeoRadius

LATITUDES = st.sampled_from([90.0, -90.0, 0.0, 89.99, 48.137]) | st.floats(-90, 90)
LONGITUDES = st.sampled_from([180.0, -180.0, 179.999, 0.0, 11.575]) | st.floats(-180, 180)


def columns(
    places: list[tuple[float, float] | None],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Cell and place of rows, as item columns hold them."""
    cells = [
        NO_CELL if place is None else h3.latlng_to_cell(*place, CELL_RESOLUTION) for place in places
    ]
    points = [(math.nan,) * 3 if place is None else on_sphere(*place) for place in places]
    return np.array(cells, np.uint64), np.array(points, np.float32).reshape(len(points), 3)


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
    places = around(near, seed)

    rows = set(Places(*columns(places)).within(near).tolist())

    for row, place in enumerate(places):
        if place is None:
            assert row not in rows
            continue
        away_km = h3.great_circle_distance((latitude, longitude), place)
        # A point of float32 is within half a metre; half way around, a metre of chord is more.
        slack_km = 0.002 + 1e-4 * radius_km**2 / 6_371
        if abs(away_km - radius_km) > slack_km:
            assert (row in rows) == (away_km < radius_km)


def test_rows_that_moved_are_where_they_are_now() -> None:
    near = GeoRadius(latitude=48.0, longitude=11.0, radius_km=5)
    cell, place = columns([(48.0, 11.0), (10.0, 10.0), None, (48.01, 11.0)])
    places = Places(cell, place)
    cell[:3], place[:3] = columns([(0.0, 0.0), (48.0, 11.01), None])
    for row in range(3):
        places.moved(row)

    assert places.within(near).tolist() == [1, 3]


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(-2, 2), st.floats(-2, 2))
def test_closeness_falls_from_1_at_the_place_to_0_at_the_radius(
    latitude: float, longitude: float, north: float, east: float
) -> None:
    there = np.array([on_sphere(latitude + north / 2, longitude + east)], np.float32)
    away_km = 6_371.0088 * math.acos(
        min(
            1.0,
            math.sin(math.radians(latitude)) * math.sin(math.radians(latitude + north / 2))
            + math.cos(math.radians(latitude))
            * math.cos(math.radians(latitude + north / 2))
            * math.cos(math.radians(east)),
        )
    )

    (found,) = closeness(GeoRadius(latitude=latitude, longitude=longitude, radius_km=50), there)

    assert found == pytest.approx(1 - away_km / 50, abs=1e-3)
