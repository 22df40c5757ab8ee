"""Make a past answer again from its record, and say where the two differ.

The vectors of the slots are scored by the model that scored them, each in its old row of a batch of
the old size; the policy is run again with its seed. Of an epsilon-greedy slate the places in the
model's order are enough for that; other policies need what they read of all candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from rankstream.contracts.policy import Policy
from rankstream.errors import SpecMismatch, UnknownAnswer
from rankstream.features import spec
from rankstream.pb.events_pb2 import PolicyFacts, ServedSlate
from rankstream.pb.ranker_pb2 import Difference
from rankstream.ports import Model, Scores
from rankstream.ranking.decide import Choice, decide, plain_places, propensities
from rankstream.ranking.facts import Facts
from rankstream.ranking.interleaving import team_draft
from rankstream.ranking.policy import generator
from services.ranker.interleaved import draft_generator, drafted, told
from services.ranker.models import preference
from services.ranker.policy_facts import decode_facts
from services.ranker.preranking import disagreement
from services.ranker.slates import steps_of

Floats = npt.NDArray[np.float32]

# Of a record that is brought; no ranker scores more.
CANDIDATES_MAX: Final = 10_000

SCORES: Final = "scores_differ"
BATCH: Final = "scores_depend_on_other_rows"
POLICY: Final = "policy_unknown"
CANDIDATES: Final = "candidates_not_kept"
PREFERENCES: Final = "preferences_differ"
SLATE: Final = "slate_differs"
PROPENSITIES: Final = "propensities_differ"
STEPS: Final = "steps_differ"
CUT: Final = "cut_differs"


@dataclass(frozen=True)
class Rescored:
    """What the model gives to the slots now: scores and preferences, shape (n,) each."""

    scores: Scores
    preference: Floats


def reproduce(
    slate: ServedSlate,
    model: Model,
    other: Model | None,
    policy_of: Callable[[str], Policy | None],
    stand_in: Model | None = None,
) -> list[Difference]:
    """Where the record and the answer made again differ; none: they agree to the last bit.

    Args:
        other: the second model of an interleaved slate.
        policy_of: a policy by its hash, None if it is not known.
        stand_in: the model whose stand-in cut the candidates, None if nothing was cut.

    Raises:
        SpecMismatch: the slate's features are of another definition than this service's.
        UnknownAnswer: the record lacks what is needed, or its columns do not fit one another.
    """
    check_record(slate)
    found = rescored(slate, model)
    out = _scored(slate, model, found)
    if problem := disagreement(slate, stand_in):
        out.append(_difference(CUT, problem))
    policy = policy_of(slate.policy_hash) or _kept(slate)
    if policy is None:
        return [*out, _difference(POLICY, f"nobody knows policy {slate.policy_hash}")]
    try:
        if other is None:
            return [*out, *_chosen(slate, found, policy)]
        return [*out, *redrafted(slate, found, rescored(slate, other), policy.settled)]
    except ValueError as error:
        raise UnknownAnswer(
            f"unknown_answer: the facts of {slate.request_id} do not fit: {error}. Not reproduced."
        ) from None


def check_record(slate: ServedSlate) -> None:
    """Raises: SpecMismatch, UnknownAnswer."""
    if slate.spec_id != spec.SPEC_ID:
        raise SpecMismatch(
            f"spec_mismatch: answer {slate.request_id} has features {slate.spec_id}, this service"
            f" knows {spec.SPEC_ID}. Not reproduced. Ask a service of its version."
        )
    n, m, between = len(slate.item_id), slate.candidates, slate.interleaving
    columns = (slate.logit, slate.pctr, slate.propensity, slate.candidate, slate.place)
    whole = all(len(column) == n for column in columns)
    places = (*slate.candidate, *slate.place, *between.first, *between.second)
    inside = all(i < m for i in places)
    sizes = (slate.candidates, slate.slots)
    fits = whole and inside and all(0 <= size <= CANDIDATES_MAX for size in sizes)
    if slate.HasField("prerank"):
        fits = fits and len(slate.prerank.score) == n and m <= slate.prerank.before
    if between.model_id:
        fits = fits and len(between.logit) == len(between.team) == n
    if not fits or len(slate.features) != n * spec.WIDTH * 4:
        raise UnknownAnswer(
            f"unknown_answer: the record of {slate.request_id} does not hold what its {n} items"
            " of their candidates need. Not reproduced. Records before places were logged cannot"
            " be."
        )


def rescored(slate: ServedSlate, model: Model) -> Rescored:
    """The slots' scores, each in its old row of a batch of the old size."""
    features = np.frombuffer(slate.features, "<f4").reshape(-1, spec.WIDTH)
    return _batch(slate, model, features, model.feature_means)


def _batch(slate: ServedSlate, model: Model, features: Floats, filler: Floats) -> Rescored:
    if not len(features):
        nothing = np.empty(0, np.float32)
        return Rescored(Scores(nothing, nothing), nothing)
    rows = np.tile(filler, (slate.candidates, 1))
    places = np.array(slate.candidate, np.intp)
    rows[places] = features
    scores = model.score(rows)
    ordered = preference(model, scores, rows)[places]
    return Rescored(Scores(scores.logit[places], scores.pctr[places]), ordered)


def _scored(slate: ServedSlate, model: Model, found: Rescored) -> list[Difference]:
    logit, pctr = np.array(slate.logit, np.float32), np.array(slate.pctr, np.float32)
    off = (found.scores.logit != logit) | (found.scores.pctr != pctr)
    if not off.any():
        return []
    largest = float(np.abs(found.scores.logit - logit).max())
    detail = f"{np.count_nonzero(off)} of {len(logit)} scores, by up to {largest:.3g} logits"
    features = np.frombuffer(slate.features, "<f4").reshape(-1, spec.WIDTH)
    other = _batch(slate, model, features, np.zeros_like(model.feature_means))
    if (other.scores.logit != found.scores.logit).any():
        return [_difference(BATCH, f"{detail}; int8 graphs scale by what else is in a batch")]
    return [_difference(SCORES, detail)]


def _chosen(slate: ServedSlate, found: Rescored, policy: Policy) -> list[Difference]:
    if policy.is_plain:
        out = _ordered(found, slate.candidate, slate.place)
        return [*out, *_compared(slate, _again(slate, policy), None)]
    if not slate.HasField("facts"):
        return [_NOT_KEPT]
    facts = _facts(slate, slate.facts, policy)
    out = _preferred(slate, facts, found)
    salt, request_id = slate.policy_salt, slate.request_id
    choice = decide(
        policy, facts, slate.slots, slate.served_time_ms, salt=salt, request_id=request_id
    )
    simulated = propensities(policy, choice, salt=salt, request_id=request_id)
    return [*out, *_compared(slate, choice, simulated)]


def _facts(slate: ServedSlate, kept: PolicyFacts, policy: Policy) -> Facts:
    facts = decode_facts(kept, policy)
    if len(facts.preference) != slate.candidates:
        raise ValueError(f"preferences of {len(facts.preference)}, not {slate.candidates}")
    return facts


def _preferred(slate: ServedSlate, facts: Facts, found: Rescored) -> list[Difference]:
    """Whether the policy read what the model gives to the slots now."""
    off = facts.preference[np.array(slate.candidate, np.intp)] != found.preference
    return [_difference(PREFERENCES, f"{np.count_nonzero(off)} of {len(off)}")] if off.any() else []


def redrafted(
    slate: ServedSlate, first: Rescored, second: Rescored, policy: Policy
) -> list[Difference]:
    """An interleaved slate drafted again, from rankings that are made again if they can be."""
    kept, out = slate.interleaving, []
    if second.scores.logit.tolist() != list(kept.logit):
        out.append(_difference(SCORES, f"of the second model {kept.model_id}"))
    salt, request_id = slate.policy_salt, slate.request_id
    rankings = [np.array(ranking, np.intp) for ranking in (kept.first, kept.second)]
    if policy.is_plain:
        # The rankings are the orders of the models, as far as they were drafted.
        out += _ordered(first, slate.candidate, slate.place)
        for ranking, found in zip(rankings, (first, second), strict=True):
            place_of = {candidate: place for place, candidate in enumerate(ranking.tolist())}
            last = len(ranking)
            places = [place_of.get(candidate, last) for candidate in slate.candidate]
            shown = [i for i, place in enumerate(places) if place < last]
            of_shown = Rescored(found.scores, found.preference[shown])
            candidates = [slate.candidate[i] for i in shown]
            out += _ordered(of_shown, candidates, [places[i] for i in shown])
        rng = draft_generator(salt, request_id)
        draft = team_draft(rankings[0], rankings[1], slate.slots, rng)
        choice = told(draft, np.array(slate.place, np.intp))
    elif not slate.HasField("facts") or not kept.HasField("facts"):
        return [*out, _NOT_KEPT]
    else:
        facts = [_facts(slate, one, policy) for one in (slate.facts, kept.facts)]
        out += _preferred(slate, facts[0], first) + _preferred(slate, facts[1], second)
        now = slate.served_time_ms
        draft, choice, again = drafted(policy, facts, slate.slots, now, salt, request_id)
        if [ranking.tolist() for ranking in again] != [ranking.tolist() for ranking in rankings]:
            out.append(_difference(SLATE, "rankings of the two models"))
    if draft.team.tolist() != list(kept.team) or draft.chosen.tolist() != list(slate.candidate):
        out.append(_difference(SLATE, f"teams {draft.team.tolist()} now"))
    return [*out, *_compared(slate, choice, None)]


def _kept(slate: ServedSlate) -> Policy | None:
    """The policy that the record itself holds."""
    try:
        policy = Policy.model_validate_json(slate.facts.config)
    except ValidationError:
        return None
    return policy if policy.sha256 == slate.policy_hash else None


def _again(slate: ServedSlate, policy: Policy) -> Choice:
    """Epsilon-greedy over as many candidates: it chooses places, whoever stands there."""
    rng = generator(slate.policy_salt, slate.request_id)
    return plain_places(slate.candidates, slate.slots, policy.epsilon, rng)


def _ordered(found: Rescored, candidates: Sequence[int], places: Sequence[int]) -> list[Difference]:
    """Whether places are those of the preferences: falling, equal ones as they came."""
    keys = list(zip((-found.preference).tolist(), candidates, strict=True))
    by_place = [keys[i] for i in np.argsort(np.array(places, np.intp)).tolist()]
    if by_place == sorted(by_place):
        return []
    return [_difference(PREFERENCES, "places are not in the order of the preferences")]


def _compared(
    slate: ServedSlate,
    choice: Choice,
    simulated: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None,
) -> list[Difference]:
    out = []
    # Of epsilon-greedy the candidates are places already.
    if choice.place.tolist() != list(slate.place) or (
        choice.filled is not None and choice.slate.chosen.tolist() != list(slate.candidate)
    ):
        detail = f"places {list(slate.place)} were served, {choice.place.tolist()} now"
        out.append(_difference(SLATE, detail))
    propensity, error = (choice.slate.propensity, None) if simulated is None else simulated
    told = [] if error is None else error.tolist()
    if propensity.tolist() != list(slate.propensity) or told != list(slate.propensity_error):
        out.append(_difference(PROPENSITIES, f"{propensity.tolist()} now"))
    if steps_of(choice) != list(slate.step):
        out.append(_difference(STEPS, f"{', '.join(s.name for s in choice.steps) or 'none'} now"))
    return out


def _difference(code: str, detail: str) -> Difference:
    return Difference(code=code, detail=detail)


_NOT_KEPT: Final = _difference(
    CANDIDATES, "RANKER_LOG_CANDIDATES was off: the policy was not run again"
)
