"""The record of an answer, and what its caller and its experiment are told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rankstream.experiments.assign import Assignment
from rankstream.features import spec
from rankstream.features.rows import Rows
from rankstream.pb.events_pb2 import Exposure, PolicyStep, ServedSlate
from rankstream.pb.ranker_pb2 import RankReply
from rankstream.ranking.decide import Choice
from services.ranker.enrichment import Enriched, stamps
from services.ranker.policies import Chosen
from services.ranker.policy_facts import encode_facts
from services.ranker.preranking import note
from services.ranker.requests import RankRequest, RecommendRequest


def record(
    request: RecommendRequest | RankRequest,
    request_id: str,
    now_ms: int,
    model_id: str,
    chosen_by: Chosen,
    n: int,
    logit: npt.NDArray[np.float32],
    pctr: npt.NDArray[np.float32],
    user: Rows,
    enriched: Enriched,
) -> ServedSlate:
    """All that explains and reproduces the slate; logit and pctr are of the candidates, (m,)."""
    by, choice = chosen_by.by, chosen_by.choice
    slate = choice.slate
    chosen = slate.chosen
    places = chosen.tolist()
    of_category = enriched.category_of[chosen]
    query_stamp, location_stamp = stamps(enriched.context[0])
    served = ServedSlate(
        request_id=request_id,
        user_id=request.user_id,
        served_time_ms=now_ms,
        item_id=[enriched.item_ids[i] for i in places],
        category=[enriched.categories[k] for k in of_category.tolist()],
        logit=logit[chosen].tolist(),
        pctr=pctr[chosen].tolist(),
        propensity=_told(choice).tolist(),
        features=enriched.features[chosen].astype("<f4", copy=False).tobytes(),
        spec_id=spec.SPEC_ID,
        model_id=model_id,
        policy=by.label,
        policy_hash=by.policy.sha256,
        policy_salt=by.salt,
        slots=n,
        candidate=places,
        place=choice.place.tolist(),
        step=steps_of(choice),
        user_stamp=stamps(user)[0],
        item_stamp=stamps(enriched.rows(chosen)),
        category_stamp=stamps(enriched.category_rows[of_category]),
        query_stamp=query_stamp,
        location_stamp=location_stamp,
        candidates=len(logit),
        device=request.context.device,
        query=request.context.query,
        location=request.context.location,
        rating_table=enriched.rating_table,
    )
    note(served, enriched.cut, chosen)
    return served


def steps_of(choice: Choice) -> list[PolicyStep]:
    """The steps of a policy as a record keeps them."""
    return [
        PolicyStep(
            name=step.name,
            slot=step.slots,
            before=step.before,
            after=step.after,
            removed=step.removed,
        )
        for step in choice.steps
    ]


def _told(choice: Choice) -> npt.NDArray[np.float64]:
    """Propensities as far as they are known when the answer is given; 0: not before its record."""
    propensity, filled = choice.slate.propensity, choice.filled
    if filled is None or filled.contest is None:
        return propensity
    return np.where(filled.greedy > 0, 0.0, propensity)


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


def finished(
    slate: ServedSlate, chosen: Chosen, *, candidates: bool
) -> Callable[[ServedSlate], None] | None:
    """Put what its policy read into a slate, if `candidates`; what else completes its record.

    That is the simulation of propensities, which takes longer than the answer may wait.
    """
    if candidates and chosen.facts is not None:
        policy = chosen.by.policy
        read_by = policy.settled if slate.HasField("interleaving") else policy
        slate.facts.CopyFrom(encode_facts(chosen.facts, read_by))
        slate.facts.config = policy.model_dump_json()
    if not candidates and slate.HasField("interleaving"):
        slate.interleaving.ClearField("facts")
    simulation, step = chosen.simulation, chosen.by.policy.thompson
    if simulation is None or step is None:
        return None

    def finish(slate: ServedSlate) -> None:
        propensity, error = simulation()
        slate.propensity[:] = propensity.tolist()
        slate.propensity_error[:] = error.tolist()
        slate.propensity_draws = step.draws

    return finish
