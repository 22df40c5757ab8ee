"""Business rules, freshness and duplicates: what a policy makes of the model's preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Freshness, Policy, Rule
from rankstream.ranking.facts import Facts, Floats, Mask

Places = npt.NDArray[np.intp]

_YEAR_MS: Final = 365.2425 * 86_400_000
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, eq=False)
class Change:
    """What a step made of the preferences, shape (m,), and how many candidates it took out."""

    name: str
    after: Floats
    removed: int


def places_of(preference: npt.NDArray[np.floating], candidates: Places) -> Places:
    """Place of some candidates by falling preference, 0 is first; equal ones keep their order.

    By a plain sort, which takes a fifth of the time of a stable one that gives places.

    >>> places_of(np.array([1.0, 3.0, 1.0, 2.0]), np.array([2, 1, 0])).tolist()
    [3, 0, 2]
    """
    asked, rising = preference[candidates], np.sort(preference)
    above = np.searchsorted(rising, asked, "right")
    places = len(preference) - above
    for i in np.flatnonzero(above - np.searchsorted(rising, asked, "left") > 1).tolist():
        places[i] += np.count_nonzero(preference[: candidates[i]] == asked[i])
    return places


def adjusted(policy: Policy, facts: Facts, as_of_ms: int) -> tuple[Floats, list[Change]]:
    """Preferences after the steps that come before slots are filled.

    Returns: shape (m,), -inf for candidates that were removed; and each step that there was.
    """
    preference = facts.preference.astype(np.float64)
    changes: list[Change] = []
    steps = (("rules", _ruled), ("freshness", _freshened), ("dedupe", _deduped))
    for name, step in steps:
        found = step(policy, facts, preference, as_of_ms)
        if found is not None:
            removed = int(
                np.count_nonzero(found == -np.inf) - np.count_nonzero(preference == -np.inf)
            )
            changes.append(Change(name, found, removed))
            preference = found
    return preference, changes


def _ruled(policy: Policy, facts: Facts, preference: Floats, _as_of_ms: int) -> Floats | None:
    if not policy.rules:
        return None
    out = preference.copy()
    for rule in policy.rules:
        out[facts.matching(rule.match)] += _worth(rule)
    return out


def _worth(rule: Rule) -> float:
    return {"boost": rule.amount, "bury": -rule.amount, "exclude": -np.inf}[rule.action]


def _freshened(policy: Policy, facts: Facts, preference: Floats, as_of_ms: int) -> Floats | None:
    if policy.freshness is None:
        return None
    return preference + freshness(policy.freshness, facts, as_of_ms)


def freshness(step: Freshness, facts: Facts, as_of_ms: int) -> Floats:
    """What age adds to each preference, shape (m,): weight x 2^(-age / half-life).

    An item that comes out later than now has age 0.
    """
    value = facts.attribute(step.attribute)
    born_ms = (value - 1970.0) * _YEAR_MS if step.unit == "year" else value * 1000.0
    age_days = np.maximum(as_of_ms - born_ms, 0.0) / _DAY_MS
    return np.nan_to_num(step.weight * np.exp2(-age_days / step.half_life_days), nan=0.0)


def _deduped(policy: Policy, facts: Facts, preference: Floats, _as_of_ms: int) -> Floats | None:
    if not policy.dedupe:
        return None
    out = preference.copy()
    out[_repeats(policy.dedupe, facts, preference)] = -np.inf
    return out


def _repeats(by: str, facts: Facts, preference: Floats) -> Mask:
    """Candidates that are equal to a more preferred one; nothing equals an unknown attribute."""
    repeated = np.zeros(len(preference), bool)
    if by == "item" and len(set(facts.item_ids)) == len(facts.item_ids):
        return repeated
    keys = facts.item_ids if by == "item" else facts.attribute(by).tolist()
    seen = set()
    for place in np.argsort(-preference, kind="stable").tolist():
        key = keys[place]
        repeated[place] = key in seen
        if key == key:  # not nan
            seen.add(key)
    return repeated
