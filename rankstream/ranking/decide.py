"""A policy on the candidates of one request: the slate, every step that moved something, and what
is left to simulate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Policy
from rankstream.ranking.facts import Facts, Floats
from rankstream.ranking.policy import Slate, epsilon_greedy, generator
from rankstream.ranking.preferences import adjusted, places_of
from rankstream.ranking.scoring import order
from rankstream.ranking.slots import EXPLORATION, Filled, fill
from rankstream.ranking.thompson import simulated


@dataclass(frozen=True)
class Step:
    """What a step of the policy moved: `slots` of the slate whose candidate it put there.

    before, after: place of each of those candidates in the order before the step and after it, 0
    is first; behind the steps that fill slots, the slot itself. removed: candidates taken out.
    """

    name: str
    slots: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    removed: int


@dataclass(frozen=True, eq=False)
class Choice:
    """A slate; `place`, shape (n,), is where the model's order has the candidate of each slot."""

    slate: Slate
    place: npt.NDArray[np.intp]
    steps: tuple[Step, ...]
    filled: Filled | None


def decide(
    policy: Policy, facts: Facts, n: int, as_of_ms: int, *, salt: str, request_id: str
) -> Choice:
    """The slate that a policy makes of the candidates; a function of its arguments alone."""
    rng = generator(salt, request_id)
    if policy.is_plain:
        return plain(facts.preference, n, policy.epsilon, rng)
    preference, changes = adjusted(policy, facts, as_of_ms)
    ordered = np.argsort(-preference, kind="stable")
    ordered = ordered[: np.count_nonzero(preference > -np.inf)]
    filled = fill(policy, facts.taken(ordered), preference[ordered], n, rng)
    places = filled.slate.chosen
    chosen = ordered[places]
    model = before = places_of(facts.preference, chosen) if changes else places
    steps = []
    for change in changes:
        after = places_of(change.after, chosen)
        slots = np.flatnonzero(before != after)
        steps.append(_step(change.name, slots, before[slots], after[slots], change.removed))
        before = after
    for name, decided in filled.decided.items():
        slots = np.array(decided, np.intp)
        steps.append(_step(name, slots, places[slots], slots, 0))
    kept = tuple(step for step in steps if step.slots or step.removed)
    return Choice(replace(filled.slate, chosen=chosen), model, kept, filled)


def plain(
    preference: npt.NDArray[np.float32], n: int, epsilon: float, rng: np.random.Generator
) -> Choice:
    """Epsilon-greedy over the model's order."""
    places = plain_places(len(preference), n, epsilon, rng)
    chosen = order(preference)[places.place]
    return replace(places, slate=replace(places.slate, chosen=chosen))


def plain_places(m: int, n: int, epsilon: float, rng: np.random.Generator) -> Choice:
    """Epsilon-greedy over m candidates that are named by their places, whoever stands there."""
    slate = epsilon_greedy(np.arange(m), n, epsilon, rng)
    place, explored = slate.chosen, np.flatnonzero(slate.explored)
    if not len(explored):
        return Choice(slate, place, (), None)
    # The best one that was left, if all before it stand above.
    best = [np.count_nonzero(place[:slot] < place[slot]) == place[slot] for slot in explored]
    slots = explored[~np.array(best, bool)]
    steps = (_step(EXPLORATION, slots, place[slots], slots, 0),) if len(slots) else ()
    return Choice(slate, place, steps, None)


def _step(
    name: str,
    slots: npt.NDArray[np.intp],
    before: npt.NDArray[np.intp],
    after: npt.NDArray[np.intp],
    removed: int,
) -> Step:
    columns = [tuple(column.tolist()) for column in (slots, before, after)]
    return Step(name, columns[0], columns[1], columns[2], removed)


def propensities(
    policy: Policy, choice: Choice, *, salt: str, request_id: str
) -> tuple[Floats, Floats] | None:
    """P(item in slot | slots above) and its standard error, shape (n,) each; None: all is exact.

    By simulation, with draws of its own that the salt and the request seed.
    """
    filled = choice.filled
    if filled is None or filled.contest is None or policy.thompson is None:
        return None
    rng = generator(f"{salt}\x1fpropensity", request_id)
    p, error = simulated(filled.contest, policy.thompson.draws, rng)
    return choice.slate.propensity + filled.greedy * p, filled.greedy * error
