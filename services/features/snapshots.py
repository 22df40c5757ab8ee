"""Snapshot files: whole, or as they were before."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rankstream.stream.dump import Piece


class SnapshotFolder:
    """One file per stage and partition."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def load(self, stage: str, partition: int) -> bytes | None:
        """The last snapshot, not yet checked; None if there is none."""
        try:
            return self._path(stage, partition).read_bytes()
        except FileNotFoundError:
            return None

    def save(self, stage: str, partition: int, pieces: Iterable[Piece]) -> None:
        """Replace the snapshot, durably.

        Raises: OSError if the disk is full or refuses; the old one is untouched.
        """
        path = self._path(stage, partition)
        # The process id keeps a fenced worker that still lives from writing into our file.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _path(self, stage: str, partition: int) -> Path:
        return self._folder / f"{stage}-{partition}.snapshot"
