"""Why a past answer was what it was: contributions to the logits that were served."""

from __future__ import annotations

import asyncio

import numpy as np

from rankstream.errors import SpecMismatch, UnknownAnswer
from rankstream.features import spec
from rankstream.pb.events_pb2 import ServedSlate
from rankstream.pb.ranker_pb2 import Contribution, ExplainedItem, ExplainReply
from rankstream.ports import Model
from rankstream.ranking.explain import METHOD, contributions


async def explain(slate: ServedSlate, model: Model) -> ExplainReply:
    """The slate with what each feature added, from the vectors that were scored.

    Raises:
        SpecMismatch: the slate's features are of another definition than this service's.
        UnknownAnswer: the record does not hold a vector for each of its items.
    """
    if slate.spec_id != spec.SPEC_ID:
        raise SpecMismatch(
            f"spec_mismatch: answer {slate.request_id} has features {slate.spec_id}, this service"
            f" knows {spec.SPEC_ID}. Not explained. Ask a service of its version."
        )
    n = len(slate.item_id)
    if len(slate.features) != n * spec.WIDTH * 4:
        raise UnknownAnswer(
            f"unknown_answer: {slate.request_id} has {len(slate.features)} bytes of features for"
            f" {n} items. Not explained. Read the slate in topic served."
        )
    # Off the loop: a slate of 100 items is 5,500 rows to score.
    return await asyncio.to_thread(_explain, slate, model)


def _explain(slate: ServedSlate, model: Model) -> ExplainReply:
    features = np.frombuffer(slate.features, "<f4").reshape(-1, spec.WIDTH)
    added = contributions(lambda rows: model.score(rows)[0], features, model.feature_means)
    largest_first = np.argsort(-np.abs(added), axis=1, kind="stable")
    items = [
        ExplainedItem(
            item_id=slate.item_id[i],
            logit=slate.logit[i],
            pctr=slate.pctr[i],
            propensity=slate.propensity[i],
            place=slate.place[i] if slate.place else i,
            propensity_error=slate.propensity_error[i] if slate.propensity_error else 0.0,
            team=slate.interleaving.team[i] if slate.interleaving.team else 0,
            sources=_sources(slate, i),
            contributions=[
                Contribution(
                    feature=spec.NAMES[j],
                    value=float(features[i, j]),
                    contribution=float(added[i, j]),
                )
                for j in largest_first[i].tolist()
            ],
        )
        for i in range(len(slate.item_id))
    ]
    return ExplainReply(
        request_id=slate.request_id,
        user_id=slate.user_id,
        served_time_ms=slate.served_time_ms,
        model_id=slate.model_id,
        index_id=slate.index_id,
        spec_id=slate.spec_id,
        experiment_id=slate.experiment_id,
        variant=slate.variant,
        items=items,
        degraded=slate.degraded,
        method=METHOD,
        policy=slate.policy,
        policy_hash=slate.policy_hash,
        steps=slate.step,
        prerank=slate.prerank if slate.HasField("prerank") else None,
        propensity_draws=slate.propensity_draws,
        other_model_id=slate.interleaving.model_id,
    )


def _sources(slate: ServedSlate, slot: int) -> list[str]:
    """Of retrieval, that named the item of a slot."""
    bits = slate.named_by[slot] if slate.named_by else 0
    return [name for bit, name in enumerate(slate.source_name) if bits >> bit & 1]
