"""Registered, aliased, written in the ledger: all of it or a named error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.promote.ledger import ROLLED_BACK, before, read
from pipelines.promote.registry import open_registry, point, register
from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.errors import DependencyUnavailable, InvalidArtifact, SpecMismatch
from rankstream.features import spec

# MLflow's own migrations warn; they are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_aliases_move_to_new_versions_and_the_ledger_keeps_every_move(tmp_path: Path) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
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

    client = open_registry(uri)
    assert (moved.version, moved.model_id, moved.sha256) == ("3", "m3", third.sha256)
    assert client.get_model_version_by_alias("ranker", "champion").tags["model_id"] == "m3"
    assert client.get_model_version_by_alias("ranker", "challenger").tags["model_id"] == "m2"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(line["alias"], line["model_id"], line["who"], line["why"]) for line in lines] == [
        ("champion", "m1", "ann", "first"),
        ("challenger", "m2", "ann", "first"),
        ("champion", "m3", "bob", "better"),
    ]


def test_an_altered_artefact_is_not_registered(tmp_path: Path) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
    good, bad = an_artifact(tmp_path, "m1"), an_artifact(tmp_path, "m2")
    (Path(bad.uri) / "model.onnx").write_bytes(b"half")

    with pytest.raises(InvalidArtifact, match="the manifest says"):
        register(
            uri, [("champion", good), ("challenger", bad)], ledger, time_ms=1, who="ann", why="x"
        )

    assert open_registry(uri).search_registered_models() == []
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


def test_a_rollback_points_the_alias_back_and_is_a_line_of_the_ledger(tmp_path: Path) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
    for time_ms, name in enumerate(("m1", "m2"), 1):
        artifact = an_artifact(tmp_path, name)
        register(uri, [("champion", artifact)], ledger, time_ms=time_ms, who="ann", why="new")

    to = before(read(ledger), "ranker", "champion")
    point(uri, to, ledger, alias="champion", time_ms=3, who="bob", why="ctr fell", move=ROLLED_BACK)

    alias = open_registry(uri).get_model_version_by_alias("ranker", "champion")
    assert alias.tags["model_id"] == "m1"
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
    tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception]
) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
    for name in ("m1", "m2"):
        artifact = an_artifact(tmp_path, name)
        register(uri, [("champion", artifact)], ledger, time_ms=1, who="ann", why="new")
    lines = read(ledger)
    spoil(tmp_path)

    with pytest.raises(error):
        point(uri, lines[0], ledger, alias="champion", time_ms=3, who="bob", why="x")

    alias = open_registry(uri).get_model_version_by_alias("ranker", "champion")
    assert alias.tags["model_id"] == "m2"
    assert read(ledger) == lines


def test_a_model_of_other_features_is_not_promoted(tmp_path: Path) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
    old = an_artifact(tmp_path, "m1", spec_id="0123456789abcdef")
    register(uri, [("challenger", old)], ledger, time_ms=1, who="ann", why="new")
    (line,) = read(ledger)

    with pytest.raises(SpecMismatch, match="m1 reads features of spec 0123456789abcdef"):
        point(uri, line, ledger, alias="champion", time_ms=2, who="bob", why="x")

    assert read(ledger) == [line]
