"""What is brought in is what the locks name, or nothing."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from deploy.local import tools as module
from deploy.local.errors import ChecksumMismatch
from deploy.local.report import Silent
from deploy.local.tools import LOCKS, Tools, provision, read_jars, verify

ROOT = Path(__file__).resolve().parents[2]


def test_the_jar_lock_names_each_artifact_once_with_a_sha256() -> None:
    jars = read_jars((LOCKS / "kafka-jars.txt").read_text())

    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars) == 46
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars)
    assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {"4.2.1"}


def test_a_file_that_is_not_the_locked_one_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "kafka.jar"
    path.write_bytes(b"something else")

    with pytest.raises(ChecksumMismatch, match=r"checksum_mismatch: kafka\.jar has SHA-256"):
        verify(path, hashlib.sha256(b"the jar").hexdigest())


def test_an_altered_jar_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(jars: tuple[module.Jar, ...], repository: Path) -> list[tuple[module.Jar, Path]]:
        repository.mkdir()
        path = repository / jars[0].file_name
        path.write_bytes(b"altered")
        return [(jars[0], path)]

    monkeypatch.setattr(module, "_fetch", altered)

    with pytest.raises(ChecksumMismatch):
        module.kafka_jars(tmp_path, Silent())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_the_second_provisioning_changes_nothing(tools: Tools) -> None:
    folder = ROOT / ".run" / "tools"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    again = provision(folder, Silent())

    assert again == tools
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.integration
def test_the_jars_on_disk_are_exactly_the_locked_ones(tools: Tools) -> None:
    jars = read_jars((LOCKS / "kafka-jars.txt").read_text())

    for jar in jars:
        verify(tools.kafka_jars / jar.file_name, jar.sha256)

    assert {path.name for path in tools.kafka_jars.iterdir()} == {jar.file_name for jar in jars}


@pytest.mark.integration
def test_the_tools_run(tools: Tools) -> None:
    for binary, flag in ((tools.java, "-version"), (tools.redis_server, "--version")):
        assert subprocess.run([binary, flag], capture_output=True, check=False).returncode == 0


@pytest.mark.integration
def test_movielens_has_its_hundred_thousand_ratings_and_says_how_it_may_be_used(
    tools: Tools,
) -> None:
    lines = (tools.ml_100k / "ml-100k.inter").read_text().splitlines()

    assert len(lines) == 100_001
    assert "do not pass it on" in (tools.ml_100k / "NOTICE").read_text()
