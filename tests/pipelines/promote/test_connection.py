"""Addresses of a registry, and registries that do not answer: by name, in seconds, no secrets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.promote import connection
from pipelines.promote.connection import parse_address, reach, turn
from rankstream.errors import DependencyUnavailable, InvalidSettings
from tests.postgres import PASSWORD, Postgres

SECRET = "zu-geheim"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_waits_for_postgresql_have_limits_that_an_address_may_change(scheme: str) -> None:
    url = parse_address(f"{scheme}://ann@db:5433/models?connect_timeout=9&sslmode=require")

    assert (url.drivername, url.host, url.port) == ("postgresql+psycopg", "db", 5433)
    assert url.query == {**connection.LIMITS, "connect_timeout": "9", "sslmode": "require"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"mysql://ann:{SECRET}@db/models", "is of kind mysql"),
        (f"postgres://ann:{SECRET}@db/models", "is of kind postgres"),
        ("http://mlflow:5000", "is of kind http"),
        (f"postgresql://ann:{SECRET}@db/models", r"a password.*//ann:\*\*\*@db/models"),
        (f"postgresql://ann@db/models?password={SECRET}", "a password.*//ann@db/models"),
        (f"postgresql://ann:{SECRET}@db:port/models", "cannot be read"),
        (f"{SECRET}/registry.db", "cannot be read"),
        ("", "cannot be read"),
        ("postgresql://ann@db", "names no database"),
        ("sqlite://", "names no database"),
        ("sqlite:///:memory:", "names no database"),
    ],
)
def test_another_address_is_refused_and_its_password_not_repeated(address: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said) as refused:
        parse_address(address)

    assert SECRET not in str(refused.value)
    assert "PGPASSWORD" in str(refused.value)


@given(st.text(min_size=1), st.sampled_from(["postgresql", "postgresql+psycopg", "mysql", "x"]))
def test_no_password_is_ever_taken_or_repeated(password: str, scheme: str) -> None:
    secret = quote(f"{SECRET}{password}", safe="")

    with pytest.raises(InvalidSettings) as refused:
        parse_address(f"{scheme}://ann:{secret}@db/models")

    assert SECRET not in str(refused.value)


def test_a_folder_that_cannot_be_made_is_named_at_once() -> None:
    with pytest.raises(DependencyUnavailable, match=r"model registry sqlite:////proc/none/.*none"):
        reach("sqlite:////proc/none/registry.db")


def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(silent_port: int) -> None:
    began = time.monotonic()

    with pytest.raises(DependencyUnavailable, match="timeout"):
        reach(f"postgresql://ann@127.0.0.1:{silent_port}/models?connect_timeout=2")

    assert time.monotonic() - began < 20


@pytest.mark.integration
def test_a_wrong_password_and_a_missing_database_are_named_without_the_password(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with pytest.raises(DependencyUnavailable, match="password authentication failed") as wrong:
        reach(postgres.uri("postgres"))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with pytest.raises(DependencyUnavailable, match='"nowhere" does not exist') as missing:
        reach(postgres.uri("nowhere"))

    said = f"{wrong.value} {missing.value} {capfd.readouterr()}"
    assert SECRET not in said
    assert PASSWORD not in said


@pytest.mark.integration
def test_the_password_may_stand_in_a_file(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{PASSWORD}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))

    reach(postgres.uri("postgres"))


@pytest.mark.integration
def test_who_waits_too_long_for_a_turn_is_told(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(connection, "TURN_TIMEOUT_S", 1)
    url = parse_address(postgres.uri("postgres"))

    with turn(url), pytest.raises(DependencyUnavailable, match="lock timeout"):
        reach(postgres.uri("postgres"))

    reach(postgres.uri("postgres"))
