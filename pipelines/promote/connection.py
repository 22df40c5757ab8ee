"""Where the model registry is: which addresses there are, whether it answers, whose turn it is.

An address holds no password: a command line is read by everybody on the machine, and an address
stands in errors and logs. libpq takes the password from PGPASSWORD or the file PGPASSFILE names.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from rankstream.errors import DependencyUnavailable, InvalidSettings

CONNECT_TIMEOUT_S: Final = 5
TURN_TIMEOUT_S: Final = 120
DRIVER: Final = "postgresql+psycopg"
KINDS: Final = ("sqlite", "postgresql", DRIVER)
# Of PostgreSQL's advisory locks, the one that registrations in this database take.
LOCK: Final = 0x72_61_6E_6B
# What ends a wait for a server that is not there any more: a new connection, one on which an answer
# is awaited (idle, then 3 probes), one on which bytes are not taken. An address may say otherwise.
LIMITS: Final = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
REMEDY: Final = (
    "Name sqlite:///<path> or postgresql://<user>@<host>:<port>/<database>,"
    " with the password in PGPASSWORD or in the file that PGPASSFILE names."
)


def parse_address(uri: str) -> URL:
    """The address as it is opened, with a limit to each wait; what is refused is not repeated.

    Raises: InvalidSettings: no address, another kind of database, none named, or a password in it.
    """
    try:
        url = make_url(uri)
    # The port is the one part that is converted.
    except (ArgumentError, ValueError):
        raise _refused("the address of the model registry cannot be read") from None
    if url.drivername not in KINDS:
        raise _refused(f"the model registry is of kind {url.drivername[:40]}")
    if url.password is not None or "password" in url.query:
        raise _refused(
            f"the address of the model registry has a password, which others could read:"
            f" {url.set(query={}).render_as_string(hide_password=True)}"
        )
    if not url.database or url.database == ":memory:":
        raise _refused(f"the model registry {url} names no database")
    if url.drivername == "sqlite":
        return url
    return url.set(drivername=DRIVER, query={**LIMITS, **url.query})


def reach(uri: str) -> None:
    """Have the registry answer once, in seconds: before work is done that it should keep.

    Raises:
        InvalidSettings: the address is refused.
        DependencyUnavailable: it does not answer, or does not let us in.
    """
    with turn(parse_address(uri)):
        return


@contextmanager
def turn(url: URL) -> Iterator[None]:
    """While nobody else registers in the same PostgreSQL database; a SQLite file has one writer.

    The turn is a lock of a connection, so it ends with its process, whatever happens to that.

    Raises: DependencyUnavailable: no answer, no access, or no turn in TURN_TIMEOUT_S.
    """
    try:
        holder = _sqlite(url) if url.drivername == "sqlite" else _postgresql(url)
    except (psycopg.Error, sqlite3.Error, OSError) as error:
        raise unavailable(url, error) from None
    with closing(holder):
        yield


def unavailable(url: URL, error: Exception) -> DependencyUnavailable:
    """The error of a registry that fails, with what the driver says on one line."""
    said = " ".join(str(error).split())[:200]
    return DependencyUnavailable(
        f"dependency_unavailable: model registry {url.set(query={})}: {said}."
        " Nothing was published. Mend it and run again."
    )


def _postgresql(url: URL) -> psycopg.Connection:
    # Autocommit: a transaction left open for the whole turn would keep the server from cleaning up.
    _, options = url.get_dialect()().create_connect_args(url)
    connection = psycopg.connect(**options, autocommit=True)
    try:
        connection.execute(f"SET lock_timeout = '{TURN_TIMEOUT_S}s'")
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    except psycopg.Error:
        connection.close()
        raise
    return connection


def _sqlite(url: URL) -> sqlite3.Connection:
    # MLflow tries a file that cannot be opened for 100 s.
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _refused(what: str) -> InvalidSettings:
    return InvalidSettings(f"invalid_settings: {what}. Nothing was registered. {REMEDY}")
