"""A manifest says what data is, to the byte, and names what differs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import command
from pipelines.validate.__main__ import app
from pipelines.validate.dvc import dvc_text, write_dvc
from pipelines.validate.manifest import (
    DATASET,
    dataset_of_folder,
    read_dataset,
    verify,
    write_dataset,
)
from rankstream.errors import InvalidArtifact


def events(*times_ms: int) -> pa.Table:
    columns = {"event_time_ms": pa.array(times_ms, pa.int64()), "item": [str(t) for t in times_ms]}
    return pa.table(columns)


def a_folder(root: Path) -> Path:
    folder = root / "data"
    (folder / "day=1").mkdir(parents=True)
    (folder / "day=2").mkdir()
    pq.write_table(events(5, 3), folder / "day=1" / "a.parquet")
    pq.write_table(events(9), folder / "day=2" / "a.parquet")
    (folder / "readme.txt").write_text("three rows")
    return folder


def test_a_folder_is_described_by_its_files_rows_window_and_columns(tmp_path: Path) -> None:
    found = dataset_of_folder(a_folder(tmp_path))

    assert [p.path for p in found.parts] == ["day=1/a.parquet", "day=2/a.parquet", "readme.txt"]
    assert (found.rows, found.from_ms, found.until_ms) == (3, 3, 9)
    assert found.columns == (("event_time_ms", "int64"), ("item", "string"))


def test_equal_folders_have_equal_manifests_wherever_they_are(tmp_path: Path) -> None:
    here, there = (a_folder(tmp_path / name) for name in ("here", "there"))
    write_dataset(here / DATASET, dataset_of_folder(here))
    write_dataset(there / DATASET, dataset_of_folder(there))
    os.utime(there / "readme.txt", (1, 1))

    assert (here / DATASET).read_bytes() == (there / DATASET).read_bytes()
    assert dataset_of_folder(there) == read_dataset(here / DATASET)


def test_a_delta_table_has_the_rows_of_its_newest_version(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "t"), events(1, 2, 3, 4))
    write_deltalake(str(tmp_path / "t"), events(7, 8), mode="overwrite")

    found = dataset_of_folder(tmp_path / "t")

    assert (found.rows, found.from_ms, found.until_ms) == (2, 7, 8)
    assert sum(part.path.endswith(".parquet") for part in found.parts) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "readme.txt").write_text("three rowz"), "readme.txt has sha256"),
        (lambda f: (f / "readme.txt").write_text("four"), "readme.txt has 4 bytes"),
        (lambda f: (f / "day=1" / "a.parquet").unlink(), "day=1/a.parquet is missing"),
        (lambda f: (f / "day=1" / "b").write_text(""), "day=1/b is not in the manifest"),
        (lambda f: (f / "link").symlink_to("readme.txt"), "link is not a plain file"),
    ],
)
def test_the_first_file_that_differs_is_named(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    folder = a_folder(tmp_path)
    expected = dataset_of_folder(folder)
    verify(folder, expected)

    change(folder)

    with pytest.raises(InvalidArtifact, match=said):
        verify(folder, expected)


def test_a_manifest_that_was_altered_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    path = folder / DATASET
    write_dataset(path, dataset_of_folder(folder))

    path.write_text(path.read_text().replace('"rows": 3', '"rows": 4'))

    with pytest.raises(InvalidArtifact, match="says version"):
        read_dataset(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    (folder / "day=1" / "a.parquet").write_text("no")

    with pytest.raises(InvalidArtifact, match=r"a\.parquet is no Parquet file"):
        dataset_of_folder(folder)


def test_a_failed_write_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path)
    path = tmp_path / "m.json"
    write_dataset(path, dataset_of_folder(folder))
    before = path.read_bytes()
    (folder / "readme.txt").write_text("four rows")
    changed = dataset_of_folder(folder)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.validate.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_dataset(path, changed)

    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "m.json"]


def test_a_dvc_file_is_what_dvc_itself_writes(tmp_path: Path) -> None:
    # `dvc add data` of DVC 3.67.1 wrote these values for this folder.
    folder = tmp_path / "data"
    for name, content in {
        "b.csv": b"a\r\nb\n",
        "B.csv": b"z",
        "empty": b"",
        "day=1.txt": b"q",
        "day=1/part 0.parquet": b"hello",
        'Übung/a"b.txt': b"x",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    written = yaml.safe_load(write_dvc(folder).read_text())

    assert written == {
        "outs": [
            {
                "md5": "6c00afaa2479ee6800cc2e20b7c09937.dir",
                "size": 13,
                "nfiles": 6,
                "hash": "md5",
                "path": "data",
            }
        ]
    }
    assert list(written["outs"][0]) == ["md5", "size", "nfiles", "hash", "path"]


@settings(max_examples=30, deadline=None)
@given(name=st.text("aä:#-'\"{}[] yn0", min_size=1, max_size=8).filter(lambda t: t.strip()))
def test_any_folder_name_is_valid_yaml(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("dvc") / name
    folder.mkdir()

    assert yaml.safe_load(dvc_text(folder))["outs"][0]["path"] == name


@pytest.mark.parametrize("name", [".dvcignore", "other.dvc"])
def test_what_dvc_would_leave_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")

    with pytest.raises(InvalidArtifact, match="DVC treats in a way of its own"):
        dvc_text(tmp_path)


def test_the_commands_write_a_manifest_and_check_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_folder(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["validate", *arguments, str(folder)])
        try:
            return command.run(app)
        except SystemExit as stop:
            return int(str(stop.code))

    assert (run("manifest"), run("verify"), run("dvc")) == (0, 0, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["files"] == 3
    assert lines[1]["unaltered"] is True
    assert lines[2]["dvc"] == str(tmp_path / "data.dvc")
    (folder / "readme.txt").write_text("three rowz")

    code = run("verify")

    assert code == 1
    assert "readme.txt has sha256" in capsys.readouterr().err
