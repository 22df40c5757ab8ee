"""Registered, aliased, written in the ledger: all of it or a named error."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.promote.ledger import ROLLED_BACK, before, read
from pipelines.promote.registry import open_registry, point, prepare, register
from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.errors import DependencyUnavailable, InvalidArtifact, SpecMismatch
from rankstream.features import spec
from tests.postgres import PASSWORD, Postgres

# MLflow's own migrations warn; they are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """A database with MLflow's tables, to make others from: its migrations take 4 s."""
    name = postgres.new_database()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        # A database that somebody is connected to is no template.
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        prepare(postgres.uri(name))
    return name


@pytest.fixture
def postgres_uri(postgres: Postgres, migrated: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty registry in PostgreSQL."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgres.uri(postgres.new_database(migrated))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty registry of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    return str(request.getfixturevalue("postgres_uri"))


def held(uri: str, alias: str) -> str:
    """The id of the ranker that an alias points to."""
    with open_registry(uri) as client:
        return str(client.get_model_version_by_alias("ranker", alias).tags["model_id"])


def an_artifact(root: Path, model_id: str, spec_id: str = spec.SPEC_ID) -> Artifact:
    fields: dict[str, Any] = {
        "model_id": model_id,
        "role": "ranker",
        "family": "xgboost",
        "created_ms": 1,
        "data_version": "d1",
        "train_from_ms": 0,
        "train_until_ms": 1,
        "parity_max_abs": 0.0,
        "metrics": {"auc": 0.7},
        "spec_id": spec_id,
    }
    return write_artifact(root / model_id, fields, {"model.onnx": model_id.encode()})


def test_aliases_move_to_new_versions_and_the_ledger_keeps_every_move(
    tmp_path: Path, uri: str
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    first, second, third = (an_artifact(tmp_path, name) for name in ("m1", "m2", "m3"))

    register(
        uri,
        [("champion", first), ("challenger", second)],
        ledger,
        time_ms=1,
        who="ann",
        why="first",
    )
    (moved,) = register(uri, [("champion", third)], ledger, time_ms=2, who="bob", why="better")

    assert (moved.version, moved.model_id, moved.sha256) == ("3", "m3", third.sha256)
    assert held(uri, "champion") == "m3"
    assert held(uri, "challenger") == "m2"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(line["alias"], line["model_id"], line["who"], line["why"]) for line in lines] == [
        ("champion", "m1", "ann", "first"),
        ("challenger", "m2", "ann", "first"),
        ("champion", "m3", "bob", "better"),
    ]


def test_an_altered_artefact_is_not_registered(tmp_path: Path, uri: str) -> None:
    ledger = tmp_path / "ledger.jsonl"
    good, bad = an_artifact(tmp_path, "m1"), an_artifact(tmp_path, "m2")
    (Path(bad.uri) / "model.onnx").write_bytes(b"half")

    with pytest.raises(InvalidArtifact, match="the manifest says"):
        register(
            uri, [("champion", good), ("challenger", bad)], ledger, time_ms=1, who="ann", why="x"
        )

    with open_registry(uri) as client:
        assert client.search_registered_models() == []
    assert not ledger.exists()


def test_a_registry_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    artifact = an_artifact(tmp_path, "m1")
    (tmp_path / "registry.db").write_bytes(b"no database, but long enough to be one" * 100)

    with pytest.raises(DependencyUnavailable, match=r"model registry sqlite:///.*not a database"):
        register(
            f"sqlite:///{tmp_path}/registry.db",
            [("champion", artifact)],
            tmp_path / "ledger.jsonl",
            time_ms=1,
            who="ann",
            why="x",
        )


def test_a_rollback_points_the_alias_back_and_is_a_line_of_the_ledger(
    tmp_path: Path, uri: str
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    for time_ms, name in enumerate(("m1", "m2"), 1):
        artifact = an_artifact(tmp_path, name)
        register(uri, [("champion", artifact)], ledger, time_ms=time_ms, who="ann", why="new")

    to = before(read(ledger), "ranker", "champion")
    point(uri, to, ledger, alias="champion", time_ms=3, who="bob", why="ctr fell", move=ROLLED_BACK)

    assert held(uri, "champion") == "m1"
    last = read(ledger)[-1]
    assert (last.model_id, last.who, last.why, last.move) == ("m1", "bob", "ctr fell", ROLLED_BACK)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda root: (root / "m1" / "model.onnx").write_bytes(b"half"), InvalidArtifact),
        (lambda root: (root / "m1" / "manifest.json").unlink(), InvalidArtifact),
    ],
)
def test_an_alias_never_points_to_an_artefact_that_is_not_whole(
    tmp_path: Path, uri: str, spoil: Callable[[Path], object], error: type[Exception]
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    for name in ("m1", "m2"):
        artifact = an_artifact(tmp_path, name)
        register(uri, [("champion", artifact)], ledger, time_ms=1, who="ann", why="new")
    lines = read(ledger)
    spoil(tmp_path)

    with pytest.raises(error):
        point(uri, lines[0], ledger, alias="champion", time_ms=3, who="bob", why="x")

    assert held(uri, "champion") == "m2"
    assert read(ledger) == lines


def test_a_model_of_other_features_is_not_promoted(tmp_path: Path, uri: str) -> None:
    ledger = tmp_path / "ledger.jsonl"
    old = an_artifact(tmp_path, "m1", spec_id="0123456789abcdef")
    register(uri, [("challenger", old)], ledger, time_ms=1, who="ann", why="new")
    (line,) = read(ledger)

    with pytest.raises(SpecMismatch, match="m1 reads features of spec 0123456789abcdef"):
        point(uri, line, ledger, alias="champion", time_ms=2, who="bob", why="x")

    assert read(ledger) == [line]


@pytest.mark.integration
def test_two_first_registrations_at_the_same_time_take_turns(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    uri, ledger = postgres.uri(postgres.new_database()), tmp_path / "ledger.jsonl"
    artifacts = [an_artifact(tmp_path, name) for name in ("m1", "m2")]

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as both:
        running = [
            both.submit(
                register, uri, [("champion", one)], ledger, time_ms=1, who="ann", why="both"
            )
            for one in artifacts
        ]
        done = [promotion for future in running for promotion in future.result()]

    assert {line.version for line in done} == {"1", "2"}
    lines = read(ledger)
    assert [line.version for line in lines] == ["1", "2"]
    assert held(uri, "champion") == lines[-1].model_id


@pytest.mark.integration
@pytest.mark.parametrize(
    "call",
    ["create_run", "log_metric", "create_model_version", "set_registered_model_alias"],
)
def test_a_server_that_is_killed_between_two_calls_leaves_the_alias_and_the_ledger(
    tmp_path: Path,
    postgres: Postgres,
    postgres_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    from mlflow.tracking import MlflowClient

    ledger = tmp_path / "ledger.jsonl"
    first, second = an_artifact(tmp_path, "m1"), an_artifact(tmp_path, "m2")
    register(postgres_uri, [("champion", first)], ledger, time_ms=1, who="ann", why="first")
    asked = getattr(MlflowClient, call)

    def killed_before(*arguments: Any, **options: Any) -> Any:
        postgres.kill()
        return asked(*arguments, **options)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, killed_before)
            with pytest.raises(DependencyUnavailable, match="Nothing was published"):
                register(
                    postgres_uri, [("champion", second)], ledger, time_ms=2, who="ann", why="x"
                )
        # Nobody answers now, and that is said without waiting.
        with pytest.raises(DependencyUnavailable, match="Connection refused"):
            point(postgres_uri, read(ledger)[0], ledger, alias="x", time_ms=3, who="ann", why="x")
    finally:
        postgres.start()

    assert [line.model_id for line in read(ledger)] == ["m1"]
    assert held(postgres_uri, "champion") == "m1"
    register(postgres_uri, [("champion", second)], ledger, time_ms=4, who="ann", why="again")
    assert held(postgres_uri, "champion") == "m2"
