"""The record of an answer, and what its caller and its experiment are told of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rankstream.experiments.assign import Assignment
from rankstream.features import spec
from rankstream.features.rows import Rows
from rankstream.pb.events_pb2 import Exposure, ServedSlate
from rankstream.pb.ranker_pb2 import RankReply
from rankstream.ranking.policy import Slate
from services.ranker.enrichment import Enriched, stamps
from services.ranker.requests import RankRequest, RecommendRequest


def record(
    request: RecommendRequest | RankRequest,
    request_id: str,
    now_ms: int,
    model_id: str,
    policy: str,
    slate: Slate,
    logit: npt.NDArray[np.float32],
    pctr: npt.NDArray[np.float32],
    user: Rows,
    enriched: Enriched,
) -> ServedSlate:
    """All that explains and reproduces the slate; logit and pctr are of the candidates, (m,)."""
    chosen = slate.chosen
    places = chosen.tolist()
    of_category = enriched.category_of[chosen]
    query_stamp, location_stamp = stamps(enriched.context[0])
    return ServedSlate(
        request_id=request_id,
        user_id=request.user_id,
        served_time_ms=now_ms,
        item_id=[enriched.item_ids[i] for i in places],
        category=[enriched.categories[k] for k in of_category.tolist()],
        logit=logit[chosen].tolist(),
        pctr=pctr[chosen].tolist(),
        propensity=slate.propensity.tolist(),
        features=enriched.features[chosen].astype("<f4", copy=False).tobytes(),
        spec_id=spec.SPEC_ID,
        model_id=model_id,
        policy=policy,
        user_stamp=stamps(user)[0],
        item_stamp=stamps(enriched.rows(chosen)),
        category_stamp=stamps(enriched.category_rows[of_category]),
        query_stamp=query_stamp,
        location_stamp=location_stamp,
        candidates=len(logit),
        device=request.context.device,
        query=request.context.query,
        location=request.context.location,
    )


def assigned(slate: ServedSlate, assignment: Assignment) -> Exposure:
    """Write the variant into the slate; the exposure that goes with it."""
    slate.experiment_id = assignment.experiment_id
    slate.experiment_version = assignment.version
    slate.variant = assignment.variant
    return Exposure(
        experiment_id=assignment.experiment_id,
        experiment_version=assignment.version,
        variant=assignment.variant,
        unit=slate.user_id,
        bucket=assignment.bucket,
        exposure_time_ms=slate.served_time_ms,
        request_id=slate.request_id,
        overridden=assignment.overridden,
    )


def reply_of(slate: ServedSlate, unknown: Sequence[str]) -> RankReply:
    """What the caller is told."""
    return RankReply(
        request_id=slate.request_id,
        item_id=slate.item_id,
        score=slate.pctr,
        propensity=slate.propensity,
        category=slate.category,
        model_id=slate.model_id,
        index_id=slate.index_id,
        experiment_id=slate.experiment_id,
        variant=slate.variant,
        degraded=slate.degraded,
        served_time_ms=slate.served_time_ms,
        candidates=slate.candidates,
        unknown_item_ids=unknown,
    )
