"""`rankstream keys new`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from rankstream.adapters.keys import read_keys, sha256_of
from rankstream.cli import app


def test_a_new_key_is_shown_once_with_its_line_for_the_file(tmp_path: Path) -> None:
    options = [
        "--name",
        "web",
        "--scope",
        "read",
        "--scope",
        "write",
        "--rate",
        "5",
        "--burst",
        "9",
    ]

    made = CliRunner().invoke(app, ["keys", "new", *options])

    secret, line = made.stdout.splitlines()
    (tmp_path / "keys").write_text(line)
    (key,) = read_keys(tmp_path / "keys")
    assert key.sha256 == sha256_of(secret)
    assert (key.name, key.scopes, key.rate_per_s, key.burst) == ("web", ("read", "write"), 5.0, 9)


def test_as_json_it_is_one_document() -> None:
    made = CliRunner().invoke(app, ["keys", "new", "--name", "web", "--json"])

    said = json.loads(made.stdout)
    assert said["line"]["sha256"] == sha256_of(said["key"])
    assert said["line"]["scopes"] == ["read"]


def test_a_scope_that_there_is_not_is_refused() -> None:
    made = CliRunner().invoke(app, ["keys", "new", "--name", "web", "--scope", "root"])

    assert made.exit_code == 1
    assert "invalid_settings: scopes.0" in made.stderr
