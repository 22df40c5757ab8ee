"""The candidates of one request, as they are answered and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream import metrics
from rankstream.adapters.metrics import Metrics
from rankstream.candidates.merging import Merged
from rankstream.contracts.sources import FRESH, NAMES, Name
from rankstream.pb import retrieval_pb2
from rankstream.retrieval import Rows

MERGED: Final = "merged"
NOBODY: Final = "none"
# Whether a value of named_by holds each source.
_HOLDS: Final = np.arange(1 << len(NAMES))[:, None] >> np.arange(len(NAMES)) & 1


@dataclass(frozen=True)
class Candidates:
    """Best first: item ids, similarity and who named each, all n; what was missing; who gave them.

    `named_by`: bits of contracts.sources. `dropped`: sources under their floor. `filled`: how many
    each fallback gave. `source`: "merged", or the name of the only one.
    """

    item_ids: list[str]
    similarity: npt.NDArray[np.float32]
    named_by: npt.NDArray[np.uint32]
    degraded: tuple[str, ...]
    source: str
    dropped: list[Name]
    filled: dict[Name, int]


def candidates_of(
    merged: Merged, item_ids: Callable[[Rows], list[str]], degraded: tuple[str, ...]
) -> Candidates:
    """What was merged, by name; `item_ids`: of rows."""
    # Fresh items are mostly the towers' as well.
    named = list(dict.fromkeys(merged.sources))
    gave = [name for name in named if name != FRESH] or named
    led = MERGED if len(gave) > 1 else next(iter([*gave, *merged.filled]), NOBODY)
    rows, score, named_by = merged.blend
    return Candidates(item_ids(rows), score, named_by, degraded, led, merged.dropped, merged.filled)


def reply_of(candidates: Candidates, index_id: str) -> retrieval_pb2.RetrieveReply:
    """The message of an answer."""
    return retrieval_pb2.RetrieveReply(
        item_id=candidates.item_ids,
        similarity=candidates.similarity.tolist(),
        index_id=index_id,
        degraded=candidates.degraded,
        source=candidates.source,
        source_name=NAMES,
        named_by=candidates.named_by.tolist(),
    )


class Counters:
    """Who named, dropped and filled, counted over answers."""

    def __init__(self, metrics_of: Metrics) -> None:
        named, dropped, filled = (
            metrics_of.counter(metric)
            for metric in (
                metrics.RETRIEVAL_CANDIDATES,
                metrics.RETRIEVAL_DROPPED,
                metrics.RETRIEVAL_FILLED,
            )
        )
        self._named = [named.labels(name) for name in NAMES]
        self._dropped = {name: dropped.labels(name) for name in NAMES}
        self._filled = {name: filled.labels(name) for name in NAMES}

    def count(self, candidates: Candidates) -> None:
        """Count one answer."""
        named = np.bincount(candidates.named_by, minlength=len(_HOLDS)) @ _HOLDS
        for counter, count in zip(self._named, named.tolist(), strict=True):
            counter.inc(count)
        for name in candidates.dropped:
            self._dropped[name].inc()
        for name, filled in candidates.filled.items():
            self._filled[name].inc(filled)
