"""Snapshot files are whole, or as they were before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.features.snapshots import SnapshotFolder


def test_gives_back_what_was_saved_last(tmp_path: Path) -> None:
    folder = SnapshotFolder(str(tmp_path / "deep" / "folder"))

    folder.save("users", 0, [b"first"])
    folder.save("users", 0, [b"second"])
    folder.save("users", 1, [b"other"])

    assert folder.load("users", 0) == b"second"
    assert folder.load("users", 1) == b"other"
    assert folder.load("items", 0) is None


def test_a_write_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SnapshotFolder(str(tmp_path))
    folder.save("users", 0, [b"good"])

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.save("users", 0, [b"cut"])

    assert folder.load("users", 0) == b"good"
    assert [path.name for path in tmp_path.iterdir()] == ["users-0.snapshot"]
