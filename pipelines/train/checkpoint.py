"""Where a fit stands after an epoch: one file, written whole, of use to the same fit only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

Leaves = Sequence[npt.NDArray[Any]]

_VERSION: Final = "version"
_EPOCH: Final = "epoch"


@dataclass(frozen=True)
class Run:
    """What outlives a crash, and who hears of progress.

    `folder` holds checkpoints, None: none are kept; `data_version` is that of the rows: a
    checkpoint of others is of no use. `step` hears (family, epochs done, epochs at most).
    """

    folder: Path | None = None
    data_version: str = ""
    step: Callable[[str, int, int], None] = lambda what, done, total: None


def save(path: Path, version: str, epoch: int, leaves: Leaves) -> None:
    """Replace the file by what is known after `epoch` epochs; a crash leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".tmp")
    with staging.open("wb") as file:
        named: dict[str, Any] = {f"leaf{place}": leaf for place, leaf in enumerate(leaves)}
        named |= {_VERSION: version, _EPOCH: epoch}
        np.savez(file, allow_pickle=False, **named)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def load(path: Path, version: str) -> tuple[int, list[npt.NDArray[Any]]] | None:
    """Epochs done and the leaves; None if there is nothing, or it is of another version."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored[_VERSION]) != version:
                return None
            leaves = [stored[f"leaf{place}"] for place in range(len(stored.files) - 2)]
            return int(stored[_EPOCH]), leaves
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
