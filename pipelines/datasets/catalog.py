"""Every public log by name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipelines.datasets import avazu, criteo, kuairand, mind, movielens, open_bandit, retailrocket
from pipelines.datasets.history import History
from rankstream.errors import InvalidInput


class Dataset(StrEnum):
    """Logs that can be read."""

    MOVIELENS = "movielens"
    KUAIRAND = "kuairand"
    RETAILROCKET = "retailrocket"
    MIND = "mind"
    OPEN_BANDIT = "open-bandit"
    AVAZU = "avazu"
    CRITEO = "criteo"


READERS = {
    Dataset.RETAILROCKET: retailrocket.history,
    Dataset.MIND: mind.history,
    Dataset.OPEN_BANDIT: open_bandit.history,
    Dataset.AVAZU: avazu.history,
    Dataset.CRITEO: criteo.history,
}


def read_history(
    name: Dataset, folder: Path, *, until_ms: int | None = None, with_history: bool = False
) -> History:
    """The log in `folder` as events and items.

    Args:
        until_ms: the last event is shifted there; None keeps the times of the log.
        with_history: KuaiRand's exposures before the log, too, at invented times.

    Raises: InvalidInput: a file is malformed or absent, or the log has no history before it.
    """
    if name is Dataset.KUAIRAND:
        return kuairand.history(folder, until_ms=until_ms, with_history=with_history)
    if with_history:
        raise InvalidInput(
            f"invalid_input: {name} has no history before the log that could be placed in time."
            " Nothing was read. Leave --with-history out."
        )
    if name is Dataset.MOVIELENS:
        return movielens.history(movielens.read_ratings(folder), until_ms=until_ms)
    return READERS[name](folder, until_ms=until_ms)
