"""The commands on a real Kafka: a log goes in, models that services can load come out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from pipelines.__main__ import app
from rankstream import topics
from rankstream.adapters.artifacts import read_manifest
from rankstream.adapters.kafka import LogReader, Record
from rankstream.adapters.onnx_model import OnnxModel
from rankstream.errors import DependencyUnavailable
from rankstream.pb import events_pb2 as pb
from services.features.lake_rows import PARTITION_BY, event_rows
from tests.pipelines.datasets.test_movielens import INTER, ITEM, USER, a_folder
from tests.postgres import PASSWORD, Postgres

ROOT = Path(__file__).resolve().parents[2]
UNTIL_MS = 1_790_000_000_000

pytestmark = pytest.mark.integration


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def read(bootstrap: str, topic: str) -> list[Record]:
    async def all_records() -> list[Record]:
        reader, found = LogReader(bootstrap, [topic]), []
        while not reader.caught_up:
            found += await reader.poll(10_000, 1.0)
        await reader.close()
        return found

    return asyncio.run(all_records())


def a_movielens(root: Path) -> Path:
    """60 users and 40 films in two camps."""
    rng = np.random.default_rng(1)
    lines = []
    for user in range(1, 61):
        for k, film in enumerate(rng.permutation(40)[:25].tolist(), start=1):
            liked = user % 2 == film % 2
            rating = int(rng.integers(4, 6) if rng.random() < (0.85 if liked else 0.2) else 2)
            lines.append(
                f"{user}\t{film + 1}\t{rating}\t{int(rng.integers(1_000_000, 3_000_000)) + k}"
            )
    genre = ("Drama", "War")
    films = [f"{k + 1}\tFilm {k}\t19{50 + k}\t{genre[k % 2]}" for k in range(40)]
    users = [f"{k}\t{20 + k}\t{'MF'[k % 2]}\tother\t0" for k in range(1, 61)]
    root.mkdir()
    return a_folder(
        root,
        inter=INTER + "\n".join(lines) + "\n",
        item=ITEM + "\n".join(films) + "\n",
        user=USER + "\n".join(users) + "\n",
    )


def test_a_log_becomes_registered_and_published_models(
    kafka_topics: str, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = a_movielens(tmp_path / "log")
    where = ("--bootstrap", kafka_topics, "--until-ms", str(UNTIL_MS))
    produced = job("pipelines.datasets", "produce", "--path", str(log), *where)
    assert produced.returncode == 0, produced.stderr
    records = read(kafka_topics, topics.EVENTS.name)
    lake = tmp_path / "lake"
    # The lake's append time is that of the log; the history ends in the broker's past or future.
    records = [Record(*_fields(record)) for record in records]
    write_deltalake(
        str(lake / "events"), event_rows(records).table, partition_by=list(PARTITION_BY)
    )
    # As in compose; the demo's is a SQLite file.
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    registry = postgres.uri(postgres.new_database())
    artifacts = tmp_path / "artifacts"

    done = job(
        *("pipelines", "run", "--lake", str(lake), "--artifacts", str(artifacts)),
        *("--registry", registry, *where),
    )

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["metrics"]["challenger"]["auc"] > 0.7
    assert summary["metrics"]["retrieval"]["recall_at_500"] == 1.0
    assert json.loads(produced.stdout.splitlines()[-1])["items"] == 40
    report = Path(summary["report"])
    assert {path.suffix for path in report.glob("comparison.*")} == {".html", ".json", ".md"}
    # Nothing was served yet.
    assert summary["rows"] == {
        "logged": 0,
        "replayed": summary["train_rows"] + summary["test_rows"],
    }
    names = ("logistic_regression (champion)", "xgboost (challenger)")
    assert summary["judged"]["champion"] in names
    assert list((artifacts / "validation").glob("*/validation.html"))
    pointers = {
        record.key.decode(): pb.ModelPointer.FromString(record.value or b"")
        for record in read(kafka_topics, topics.MODELS.name)
    }
    assert set(pointers) == {"ranker/champion", "ranker/challenger", "retrieval/champion"}
    for key, pointer in pointers.items():
        manifest = read_manifest(pointer.uri, pointer.sha256)
        assert manifest.model_id == summary["models"][key] == pointer.model_id
    champion = pointers["ranker/champion"]
    assert OnnxModel.load(champion.uri, champion.sha256).model_id == champion.model_id
    again = job(
        *("pipelines.features", "lake", "rows", "--lake", str(lake), "--model", champion.uri)
    )
    assert json.loads(again.stdout.splitlines()[-1])["same"] is True, again.stderr
    assert len((artifacts / "promotions.jsonl").read_text().splitlines()) == 3


def _fields(record: Record) -> tuple[str, int, int, int, bytes, bytes | None]:
    return record.topic, record.partition, record.offset, UNTIL_MS, record.key, record.value


def test_an_empty_log_registers_nothing(kafka_topics: str, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"

    done = job(
        *("pipelines", "run", "--lake", str(tmp_path), "--artifacts", str(artifacts)),
        *("--registry", f"sqlite:///{tmp_path}/registry.db"),
        *("--bootstrap", kafka_topics, "--until-ms", str(UNTIL_MS)),
    )

    assert done.returncode == 1
    assert "invalid_input: lake table" in done.stderr
    assert not artifacts.exists()
    assert read(kafka_topics, topics.MODELS.name) == []


@pytest.mark.parametrize("command", ["run", "search"])
def test_a_registry_that_does_not_answer_is_named_before_anything_is_read(
    tmp_path: Path, command: str
) -> None:
    artifacts, out = tmp_path / "artifacts", tmp_path / "out"
    options = {
        "run": ("--artifacts", str(artifacts)),
        "search": ("--out", str(out), "--storage", str(out)),
    }

    asked = [command, "--lake", str(tmp_path / "none"), "--until-ms", str(UNTIL_MS)]
    asked += ["--registry", "postgresql://ann@127.0.0.1:1/models", *options[command]]

    done = CliRunner().invoke(app, asked)

    assert isinstance(done.exception, DependencyUnavailable)
    assert "Connection refused" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
