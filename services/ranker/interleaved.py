"""A slate that two models make together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Policy
from rankstream.pb.events_pb2 import Interleaving
from rankstream.ports import Model, Scores
from rankstream.ranking.decide import Choice, Step, decide
from rankstream.ranking.facts import Facts
from rankstream.ranking.interleaving import Draft, team_draft
from rankstream.ranking.policy import Slate, generator
from rankstream.ranking.preferences import places_of
from services.ranker.enrichment import Enriched
from services.ranker.policies import Chosen, Named, facts_of
from services.ranker.policy_facts import encode_facts

Floats = npt.NDArray[np.float32]
STEP: Final = "interleaving"


def interleave(
    by: Named,
    enriched: Enriched,
    scored: Sequence[tuple[Model, Scores, Floats]],
    n: int,
    now_ms: int,
    request_id: str,
) -> tuple[Chosen, Interleaving]:
    """The draft of two models' slates under one policy, without what that would draw.

    Args:
        scored: the two models, their scores and preferences of all candidates.
    """
    policy = by.policy.settled
    facts = [facts_of(policy, enriched, scores, preferred) for _, scores, preferred in scored]
    draft, choice, rankings = drafted(policy, facts, n, now_ms, by.salt, request_id)
    _, (second, scores, _) = scored
    between = Interleaving(
        model_id=second.model_id,
        team=draft.team.tolist(),
        logit=scores.logit[draft.chosen].tolist(),
        first=rankings[0].tolist(),
        second=rankings[1].tolist(),
    )
    if policy.is_plain:
        return Chosen(by, choice, None, None), between
    between.facts.CopyFrom(encode_facts(facts[1], policy))
    return Chosen(by, choice, facts[0], None), between


def drafted(
    policy: Policy, facts: Sequence[Facts], n: int, now_ms: int, salt: str, request_id: str
) -> tuple[Draft, Choice, list[npt.NDArray[np.intp]]]:
    """The draft, what a record tells of it, and both rankings."""
    choices = [decide(policy, one, n, now_ms, salt=salt, request_id=request_id) for one in facts]
    first, second = (choice.slate.chosen for choice in choices)
    draft = team_draft(first, second, n, draft_generator(salt, request_id))
    places = places_of(facts[0].preference, draft.chosen)
    return draft, told(draft, places), [first, second]


def draft_generator(salt: str, request_id: str) -> np.random.Generator:
    """The coins of one request's draft, apart from those of its policy."""
    return generator(f"{salt}\x1f{STEP}", request_id)


def told(draft: Draft, places: npt.NDArray[np.intp]) -> Choice:
    """A draft as a policy's choice; `places`, shape (n,), are in the first model's order."""
    slate = Slate(draft.chosen, draft.propensity, np.zeros(len(draft.chosen), bool))
    seconds = np.flatnonzero(draft.team)
    moved = tuple(seconds.tolist())
    steps = (Step(STEP, moved, tuple(places[seconds].tolist()), moved, 0),) if moved else ()
    return Choice(slate, places, steps, None)
