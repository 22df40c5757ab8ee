"""The ledger: who pointed which alias to which model, when and why. Lines are only ever added."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from rankstream.errors import InvalidArtifact, NotFound

LEDGER: Final = "promotions.jsonl"
PROMOTED: Final = "promoted"
ROLLED_BACK: Final = "rolled_back"


@dataclass(frozen=True)
class Promotion:
    """An alias now points to a model: a line of the ledger."""

    time_ms: int
    role: str
    alias: str
    model_id: str
    version: str
    data_version: str
    sha256: str
    uri: str
    who: str
    why: str
    metrics: dict[str, float]
    move: str = PROMOTED


def append(ledger: Path, promotions: Sequence[Promotion]) -> None:
    """Add lines; they are on the disk when this returns."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a", encoding="utf-8") as file:
        for promotion in promotions:
            file.write(json.dumps(asdict(promotion), sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(ledger: Path) -> list[Promotion]:
    """All lines, oldest first; none if there is no ledger yet.

    Raises: InvalidArtifact naming the line that is not one of ours.
    """
    if not ledger.exists():
        return []
    known = {field.name for field in fields(Promotion)}
    found = []
    for number, line in enumerate(ledger.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            found.append(Promotion(**{name: entry[name] for name in known & entry.keys()}))
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidArtifact(
                f"invalid_artifact: {ledger}:{number}: {error}. Nothing was changed."
                " Restore the ledger from a copy."
            ) from None
    return found


def standing(lines: Sequence[Promotion], role: str, alias: str) -> list[Promotion]:
    """The models that an alias has held and not given back, the one that it holds last.

    A rollback takes models away from the end, so the next one goes further back and not to what
    was just left.
    """
    held: list[Promotion] = []
    for line in lines:
        if (line.role, line.alias) != (role, alias):
            continue
        if line.move == ROLLED_BACK:
            while held and held[-1].model_id != line.model_id:
                held.pop()
        if not held or held[-1].model_id != line.model_id:
            held.append(line)
    return held


def before(lines: Sequence[Promotion], role: str, alias: str) -> Promotion:
    """The model that an alias held before the one that it holds.

    Raises: NotFound: there is none.
    """
    held = standing(lines, role, alias)
    if len(held) < 2:
        has = f"has only held {held[0].model_id}" if held else "has held no model"
        raise NotFound(
            f"not_found: {role}/{alias} {has}. Nothing was changed. Promote another model instead."
        )
    return held[-2]


def of_model(lines: Sequence[Promotion], role: str, model_id: str) -> Promotion:
    """The newest line of a model, whatever alias it was for.

    Raises: NotFound: the model was never promoted.
    """
    for line in reversed(lines):
        if (line.role, line.model_id) == (role, model_id):
            return line
    known = list(dict.fromkeys(line.model_id for line in lines if line.role == role))
    raise NotFound(
        f"not_found: no {role} {model_id} in the ledger (known: {', '.join(known) or 'none'})."
        " Nothing was changed. Train and register it first."
    )
