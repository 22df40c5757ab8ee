"""Settings: wrong values and unknown variables are refused by name."""

from __future__ import annotations

import pytest
from pydantic import Field

from rankstream.adapters.settings import ServiceSettings, load_settings
from rankstream.errors import InvalidSettings


class CafeSettings(ServiceSettings):
    port: int = Field(default=8099, ge=0, le=65_535)
    cups_max: int = Field(default=3, gt=0)


def test_defaults_hold_where_no_variable_is_set() -> None:
    settings = load_settings(CafeSettings, "CAFE_", {"HOST": "elsewhere", "PORT": "1"})

    assert (settings.host, settings.port, settings.cups_max) == ("127.0.0.1", 8099, 3)


def test_a_variable_with_the_prefix_sets_its_field() -> None:
    settings = load_settings(CafeSettings, "CAFE_", {"CAFE_CUPS_MAX": "7"})

    assert settings.cups_max == 7


def test_an_unknown_variable_with_the_prefix_is_refused_by_name() -> None:
    with pytest.raises(InvalidSettings, match=r"CAFE_CUP_MAX is not a setting .*CAFE_CUPS_MAX"):
        load_settings(CafeSettings, "CAFE_", {"CAFE_CUP_MAX": "7"})


def test_a_wrong_value_is_refused_with_its_name_value_and_limit() -> None:
    with pytest.raises(InvalidSettings, match=r"CAFE_CUPS_MAX is '0': .*greater than 0"):
        load_settings(CafeSettings, "CAFE_", {"CAFE_CUPS_MAX": "0"})


def test_every_problem_is_told_at_once() -> None:
    environ = {"CAFE_CUPS_MAX": "many", "CAFE_PORT": "-1", "CAFE_X": ""}

    with pytest.raises(InvalidSettings) as refused:
        load_settings(CafeSettings, "CAFE_", environ)

    assert all(name in str(refused.value) for name in environ)


def test_settings_are_frozen() -> None:
    settings = load_settings(CafeSettings, "CAFE_", {})

    with pytest.raises(ValueError, match="frozen"):
        settings.cups_max = 4  # type: ignore[misc]  # the assignment is what is tested
