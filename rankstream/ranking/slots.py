"""Fill slots from the top under pins, floors, caps, diversity, Thompson sampling, exploration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rankstream.contracts.policy import Policy
from rankstream.ranking.diversity import novelty
from rankstream.ranking.facts import Facts, Floats, Mask
from rankstream.ranking.policy import Slate
from rankstream.ranking.thompson import Cold, Contest, cold_items

PIN: Final[str] = "pins"
FLOOR: Final[str] = "floors"
CAP: Final[str] = "caps"
THOMPSON: Final[str] = "thompson"
DIVERSITY: Final[str] = "diversity"
EXPLORATION: Final[str] = "exploration"
STEPS: Final = (PIN, FLOOR, CAP, THOMPSON, DIVERSITY, EXPLORATION)


@dataclass(frozen=True, eq=False)
class Filled:
    """A slate, what decided its slots, and what its propensities still need.

    decided: step -> slots where it changed which candidate was best, given the slots above.
    In slots of a contest the slate's propensity holds, until `thompson.simulated` is known, the
    part of exploration; `greedy` is the weight of what is simulated, shape (n,).
    """

    slate: Slate
    decided: dict[str, list[int]]
    contest: Contest | None
    greedy: Floats


def fill(
    policy: Policy, facts: Facts, preference: Floats, n: int, rng: np.random.Generator
) -> Filled:
    """At most n slots; fewer if candidates are fewer, or caps leave fewer.

    At a slot with r candidates that caps and floors allow, given the slots above,

        P(item | slots above) = epsilon / r + (1 - epsilon) * P(item has the largest gain),

    where the last factor is 0 or 1, and so all exact, unless clicks of cold items are drawn. A
    pinned slot is certain.

    Args:
        facts, preference: of m candidates, best first; `slate.chosen` are places in this order.
        rng: two numbers per slot are taken first, as `epsilon_greedy` does.
    """
    run = _Run(policy, facts, preference, min(n, len(preference)), rng)
    for slot in range(run.n):
        if not run.step(slot):
            break
    return run.filled()


@dataclass
class _Group:
    """A floor: who matches, and how many slots it still needs."""

    members: Mask
    needs: int


@dataclass
class _Trail:
    """What is kept of each slot, and becomes arrays in the end."""

    chosen: list[int] = field(default_factory=list)
    propensity: list[float] = field(default_factory=list)
    greedy: list[float] = field(default_factory=list)
    winner: list[int] = field(default_factory=list)
    shift: list[Floats] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    decided: dict[str, list[int]] = field(default_factory=dict)

    def decide(self, step: str, slot: int) -> None:
        self.decided.setdefault(step, []).append(slot)


class _Run:
    """One slate in the making."""

    def __init__(
        self, policy: Policy, facts: Facts, preference: Floats, n: int, rng: np.random.Generator
    ) -> None:
        m = len(preference)
        self.n = n
        self._policy = policy
        self._facts = facts
        # As in epsilon_greedy: slot s takes the same numbers whatever came before.
        self._explored = rng.random(n) < policy.epsilon
        self._explores = self._explored.tolist()
        self._draw = rng.random(n).tolist()
        self._taken = bytearray(m)  # 1: has a slot
        self._left = m  # how many have none and may have one
        self._first = 0  # nothing before it is without a slot
        self._trail = _Trail()
        self._groups = [_Group(facts.matching(f.match), f.slots) for f in policy.floors]
        self._room: list[int] | None = None
        if policy.cap or policy.caps:
            self._room = [policy.caps.get(name, policy.cap or n) for name in facts.categories]
            self._category = facts.category.tolist()
            self._waiting = np.bincount(facts.category, minlength=len(self._room)).tolist()
        diverse = policy.diversity
        self._depth = m if diverse is None else min(m, diverse.depth)
        self._trade_off = 1.0 if diverse is None else diverse.trade_off
        self._novelty = None if diverse is None else novelty(diverse, facts, n)
        self._cold: Cold | None = None
        self._cold_of: dict[int, int] = {}  # candidate -> its place among the cold ones
        # Of the first `depth`, -inf where closed or cold; used if it is not preference alone.
        self._worth: Floats = self._trade_off * preference[: self._depth]
        if policy.thompson is not None:
            found = cold_items(policy.thompson, facts, preference, self._depth)
            if len(found.places):
                self._cold = found
                self._drawn = self._trade_off * found.preferences(n, rng)
                self._cold_at = found.places.tolist()
                self._cold_of = {place: i for i, place in enumerate(self._cold_at)}
                self._cold_shift: Floats = np.zeros(len(found.places))  # -inf: closed
                self._worth[found.places] = -np.inf
        self._pinned = self._reserved()

    def _reserved(self) -> dict[int, int]:
        """Slot -> candidate of each pin that has one; nobody else gets those candidates."""
        pinned: dict[int, int] = {}
        for pin in sorted(self._policy.pins, key=lambda pin: pin.slot):
            matching = np.flatnonzero(self._facts.matching(pin.match) & self._free())
            if pin.slot < self.n and len(matching):
                pinned[pin.slot] = int(matching[0])
                self._close(pinned[pin.slot])
        return pinned

    def _free(self) -> Mask:
        """Who has no slot yet, shape (m,)."""
        free: Mask = np.frombuffer(self._taken, np.uint8) == 0
        return free

    def _open(self) -> Mask:
        """Who has no slot yet, and a category that is not full, shape (m,)."""
        if self._room is None:
            return self._free()
        return self._free() & (np.array(self._room) > 0)[self._facts.category]

    def _close(self, i: int) -> None:
        """Candidate i has a slot, which counts for its floors and its category's cap."""
        self._taken[i] = 1
        if i < self._depth:
            self._worth[i] = -np.inf
        if i in self._cold_of:
            self._cold_shift[self._cold_of[i]] = -np.inf
        for group in self._groups:
            group.needs -= bool(group.members[i])
        if self._room is None:
            self._left -= 1
            return
        category = self._category[i]
        self._waiting[category] -= 1
        self._left -= self._room[category] > 0  # a pin may be above a cap
        self._room[category] -= 1
        if self._room[category] == 0:
            self._left -= self._waiting[category]
            if self._novelty is not None or self._cold is not None:
                self._worth[self._facts.category[: self._depth] == category] = -np.inf
            if self._cold is not None:
                full = self._facts.category[self._cold.places] == category
                self._cold_shift[full] = -np.inf

    def _needed(self, slot: int) -> Mask | None:
        """Candidates that a slot must be left to, if floors leave it no choice."""
        wanting = [group for group in self._groups if group.needs > 0]
        if not wanting:
            return None
        free = self.n - slot - sum(place >= slot for place in self._pinned)
        if sum(group.needs for group in wanting) < free:
            return None
        needed: Mask = np.logical_or.reduce([group.members for group in wanting])
        needed &= self._open()
        return needed if needed.any() else None

    def step(self, slot: int) -> bool:
        """Fill a slot; False if there is nobody left for it."""
        if slot in self._pinned:
            self._pin(slot)
            return True
        needed = self._needed(slot) if self._groups else None
        count = self._left if needed is None else int(np.count_nonzero(needed))
        if count == 0:
            return self._pull_up(slot)
        head = self._head(slot, needed)
        best = head
        if self._novelty is not None or self._cold is not None:
            best = self._best(slot, head, needed)
        chosen = best
        if self._explores[slot]:
            allowed = self._open() if needed is None else needed
            chosen = int(np.flatnonzero(allowed)[int(self._draw[slot] * count)])
            if chosen != best:
                self._trail.decide(EXPLORATION, slot)
        self._keep(chosen, best, count)
        self._close(chosen)
        if self._novelty is not None and chosen < self._depth:
            self._novelty.take(chosen)
        return True

    def _pull_up(self, slot: int) -> bool:
        """With nobody else left, the next pinned candidate takes the slot."""
        later = [place for place in self._pinned if place > slot]
        if not later:
            return False
        self._pinned[slot] = self._pinned.pop(min(later))
        self._pin(slot)
        return True

    def _head(self, slot: int, needed: Mask | None) -> int:
        """The most preferred candidate that is allowed."""
        i = self._first
        while self._taken[i]:
            i += 1
        self._first = i
        if self._room is not None and self._room[self._category[i]] <= 0:
            self._trail.decide(CAP, slot)
            while self._taken[i] or self._room[self._category[i]] <= 0:
                i += 1
        if needed is not None and not needed[i]:
            self._trail.decide(FLOOR, slot)
            i = int(needed.argmax())
        return i

    def _best(self, slot: int, head: int, needed: Mask | None) -> int:
        """The candidate of the largest gain, by novelty and drawn click rates."""
        worth = self._worth
        if needed is not None:
            worth = np.where(needed[: self._depth], worth, -np.inf)
        gain = worth if self._novelty is None else worth - self._novelty.loss
        warm = int(gain.argmax())
        top = float(gain[warm])
        if self._cold is None:
            best = warm if top > -np.inf else head
            if best != head:
                self._trail.decide(DIVERSITY, slot)
            return best
        return self._contest(slot, head, needed, worth, (warm, top))

    def _contest(
        self, slot: int, head: int, needed: Mask | None, worth: Floats, warm: tuple[int, float]
    ) -> int:
        """The better of the best warm candidate and the best cold one, and what that hung on."""
        assert self._cold is not None
        places, trail, (best_warm, top) = self._cold.places, self._trail, warm
        shift = self._cold_shift.copy()
        if needed is not None:
            shift[~needed[places]] = -np.inf
        if top == -np.inf and not (shift > -np.inf).any():
            best_warm, top = head, np.inf  # nobody else competes
        if self._novelty is None:
            best = drawn = self._better(self._drawn[slot] + shift, best_warm, top, head)
        else:
            first = int(worth.argmax())
            drawn = self._better(self._drawn[slot] + shift, first, float(worth[first]), head)
            shift -= self._novelty.loss[places]
            best = self._better(self._drawn[slot] + shift, best_warm, top, head)
        if drawn != head:
            trail.decide(THOMPSON, slot)
        if best != drawn:
            trail.decide(DIVERSITY, slot)
        trail.shift.append(shift)
        trail.best.append(top)
        self._warm = best_warm
        return best

    def _better(self, gain: Floats, warm: int, top: float, head: int) -> int:
        """The best cold candidate, if none of the others gains more."""
        cold = int(gain.argmax())
        if gain[cold] == -np.inf and top == -np.inf:
            return head
        return self._cold_at[cold] if gain[cold] >= top else warm

    def _keep(self, chosen: int, best: int, count: int) -> None:
        trail, epsilon = self._trail, self._policy.epsilon
        trail.chosen.append(chosen)
        if self._cold is None:
            trail.propensity.append(epsilon / count + (1.0 - epsilon) * (chosen == best))
            return
        trail.propensity.append(epsilon / count)
        trail.greedy.append(1.0 - epsilon)
        warm = -1 if chosen == self._warm else -2
        trail.winner.append(self._cold_of.get(chosen, warm))

    def _pin(self, slot: int) -> None:
        chosen, trail = self._pinned[slot], self._trail
        trail.decide(PIN, slot)
        trail.chosen.append(chosen)
        trail.propensity.append(1.0)
        if self._cold is not None:
            trail.greedy.append(0.0)
            trail.winner.append(-2)
            trail.shift.append(np.zeros(len(self._cold.places)))
            trail.best.append(-np.inf)
        if self._novelty is not None and chosen < self._depth:
            self._novelty.take(chosen)

    def filled(self) -> Filled:
        """What came of it."""
        trail = self._trail
        n = len(trail.chosen)
        explored = self._explored[:n]
        explored[[slot for slot in self._pinned if slot < n]] = False
        slate = Slate(np.array(trail.chosen, np.intp), np.array(trail.propensity), explored)
        contest = None
        if self._cold is not None and n:
            contest = Contest(
                self._cold,
                self._trade_off,
                np.array(trail.winner),
                np.array(trail.shift),
                np.array(trail.best),
                ~explored,
            )
        decided = {step: trail.decided[step] for step in STEPS if step in trail.decided}
        return Filled(slate, decided, contest, np.array(trail.greedy))
