"""The cut before ranking: a model's linear stand-in chooses who gets a full vector and a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankstream.features import spec
from rankstream.features.snapshot import PARTIAL
from rankstream.pb.events_pb2 import PreRank, ServedSlate
from rankstream.ports import Model
from rankstream.ranking.preranking import linear_scores

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PreRanker:
    """Whose stand-in cuts, its weights of columns PARTIAL, and how many candidates stay."""

    model_id: str
    weights: Scores
    keep: int


@dataclass(frozen=True, eq=False)
class Cut:
    """What a stand-in has done: `scores` of those that stayed, (m,), `highest` of the others."""

    model_id: str
    before: int
    scores: Scores
    highest: float


def preranker(model: Model, other: Model | None, keep: int, n: int) -> PreRanker | None:
    """What cuts the candidates of a slate of n; None: all of them are ranked.

    That is so if `keep` is 0, if the model has no stand-in, and if `other` shares the slate: a cut
    by one of two models would decide between them.
    """
    if not keep or other is not None or model.prerank is None:
        return None
    return PreRanker(model.model_id, model.prerank, max(keep, n))


def note(slate: ServedSlate, cut: Cut | None, chosen: npt.NDArray[np.intp]) -> None:
    """Write a cut into the record of a slate; `chosen`: the candidate of each slot."""
    if cut is not None:
        score = cut.scores[chosen].tolist()
        slate.prerank.CopyFrom(
            PreRank(model_id=cut.model_id, before=cut.before, cut=cut.highest, score=score)
        )


def disagreement(slate: ServedSlate, model: Model | None) -> str:
    """Where a recorded cut and the stand-in differ on the slots' vectors; "" if they agree.

    model: whose stand-in it was; None: nothing was cut.
    """
    if model is None:
        return ""
    if model.prerank is None:
        return f"model {model.model_id} has no stand-in"
    features = np.frombuffer(slate.features, "<f4").reshape(-1, spec.WIDTH)
    found = linear_scores(features[:, PARTIAL], model.prerank)
    kept = slate.prerank
    off = np.count_nonzero(found != np.array(kept.score))
    if off:
        return f"{off} of {len(found)} scores"
    if (found < kept.cut).any():
        return f"a slot scores {found.min():g}, less than the best that was cut, {kept.cut:g}"
    return ""
