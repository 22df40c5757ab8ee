"""The common `__main__`."""

from __future__ import annotations

import json

import pytest
from pydantic import Field

from rankstream.adapters.run import run
from rankstream.adapters.settings import ServiceSettings
from rankstream.errors import CannotListen, DependencyUnavailable


class CafeSettings(ServiceSettings):
    port: int = Field(default=8099, ge=0, le=65_535)


async def never(_settings: CafeSettings) -> None:
    raise AssertionError("started")


def test_check_config_passes_right_settings_and_starts_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(never, CafeSettings, "CAFE_", ["--check-config"], {"CAFE_PORT": "1"})

    assert (code, capsys.readouterr().out) == (0, "cafe: settings are valid\n")


def test_check_config_fails_wrong_settings_and_names_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(never, CafeSettings, "CAFE_", ["--check-config"], {"CAFE_PORT": "x"})

    assert code == 1
    assert "CAFE_PORT is 'x'" in capsys.readouterr().err


def test_a_service_does_not_start_with_wrong_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(never, CafeSettings, "CAFE_", [], {"CAFE_PROT": "1"}) == 1
    assert "CAFE_PROT is not a setting" in capsys.readouterr().err


def test_a_failure_is_logged_as_json_and_raised(capsys: pytest.CaptureFixture[str]) -> None:
    async def fails(_settings: CafeSettings) -> None:
        raise DependencyUnavailable("dependency_unavailable: no broker")

    with pytest.raises(DependencyUnavailable):
        run(fails, CafeSettings, "CAFE_", [], {})

    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["event"], line["service"], line["level"]) == ("service_failed", "cafe", "error")
    assert "no broker" in line["exception"]


def test_a_service_that_cannot_listen_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def taken(_settings: CafeSettings) -> None:
        raise CannotListen("cannot_listen: HTTP at 127.0.0.1:8099: Address already in use")

    code = run(taken, CafeSettings, "CAFE_", [], {})

    line = json.loads(capsys.readouterr().out)
    assert (code, line["event"], "exception" in line) == (1, "service_not_started", False)
    assert "8099" in line["error"]
