"""The policies that this ranker knows, and what they read of enriched candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Policy, decode_policies
from rankstream.errors import InvalidSettings
from rankstream.features.attributes import ITEM_ATTRIBUTES
from rankstream.features.rows import TOTALS
from rankstream.ports import Scores
from rankstream.ranking.decide import Choice, decide, plain, propensities
from rankstream.ranking.facts import Facts
from rankstream.ranking.policy import generator
from services.ranker.enrichment import Enriched
from services.ranker.settings import RankerSettings

# Kept beside the slate until the record is made; returns propensities and standard errors.
Simulation = Callable[[], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]

DEFAULT: Final = "default"
EPSILON_GREEDY: Final = "epsilon_greedy"
_IMPRESSIONS, _CLICKS = TOTALS.index("impressions"), TOTALS.index("clicks")
_NO_COUNTS: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class Named:
    """A policy, the name that answers give it, and its salt."""

    name: str
    policy: Policy
    salt: str

    @property
    def label(self) -> str:
        """How a slate names what chose its items."""
        return f"{self.name}:{self.policy.epsilon:g}:{self.salt}"


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a policy made of candidates; `facts` is what it read, if that is needed to repeat it.

    simulation: finds the propensities, if they are not all exact.
    """

    by: Named
    choice: Choice
    facts: Facts | None
    simulation: Simulation | None


class Policies:
    """By name, as one file describes them; "default" decides where nothing else is named."""

    def __init__(self, named: Mapping[str, Policy], *, epsilon: float, salt: str) -> None:
        """Raises: InvalidSettings: one reads an attribute that items do not have."""
        plain = Named(EPSILON_GREEDY, Policy(epsilon=epsilon), salt)
        self._named = {name: Named(name, policy, salt) for name, policy in named.items()}
        for name, policy in named.items():
            unknown = sorted(set(policy.attributes) - set(ITEM_ATTRIBUTES))
            if unknown:
                raise InvalidSettings(
                    f"invalid_settings: policy {name} reads {', '.join(unknown)}, which is no"
                    f" attribute of items (known: {', '.join(ITEM_ATTRIBUTES)}). Not started."
                    " Name one of them."
                )
        self.default = self._named.setdefault(DEFAULT, plain)

    @classmethod
    def load(cls, settings: RankerSettings) -> Policies:
        """Raises: InvalidSettings: the file cannot be read, or not as policies."""
        named: dict[str, Policy] = {}
        if settings.policies:
            try:
                text = Path(settings.policies).read_bytes()
            except OSError as error:
                raise InvalidSettings(
                    f"invalid_settings: RANKER_POLICIES is {settings.policies!r}, which cannot be"
                    f" read: {error.strerror}. Not started. Name a JSON file, or none."
                ) from None
            named = decode_policies(text, settings.policies)
        return cls(named, epsilon=settings.explore_epsilon, salt=settings.policy_salt)

    def named(self, name: str) -> Named | None:
        """The policy of a variant; of "": the default one."""
        return self._named.get(name) if name else self.default

    def of_hash(self, sha256: str) -> Policy | None:
        """A policy by the hash of its configuration."""
        found = (named.policy for named in self._named.values() if named.policy.sha256 == sha256)
        return next(found, None)


def choose(
    by: Named,
    enriched: Enriched,
    scores: Scores,
    preferred: npt.NDArray[np.float32],
    n: int,
    now_ms: int,
    request_id: str,
) -> Chosen:
    """The slate of a policy; `preferred`, shape (m,), is what the model orders candidates by."""
    if by.policy.is_plain:
        choice = plain(preferred, n, by.policy.epsilon, generator(by.salt, request_id))
        return Chosen(by, choice, None, None)
    facts = facts_of(by.policy, enriched, scores, preferred)
    choice = decide(by.policy, facts, n, now_ms, salt=by.salt, request_id=request_id)
    if choice.filled is None or choice.filled.contest is None:
        return Chosen(by, choice, facts, None)

    def simulation() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        found = propensities(by.policy, choice, salt=by.salt, request_id=request_id)
        assert found is not None
        return found

    return Chosen(by, choice, facts, simulation)


def facts_of(
    policy: Policy, enriched: Enriched, scores: Scores, preferred: npt.NDArray[np.float32]
) -> Facts:
    """What the policy reads of the candidates, and no more."""
    totals = enriched.category_rows["totals"]
    columns = [ITEM_ATTRIBUTES.index(name) for name in policy.attributes]
    counted = policy.counts
    return Facts(
        preference=preferred,
        pctr=scores.pctr,
        by_logit=preferred is scores.logit,
        category=enriched.category_of,
        categories=enriched.categories,
        attribute_names=policy.attributes,
        attributes=enriched.of_items("attributes")[:, columns]
        if columns
        else np.empty((0, 0), np.float32),
        impressions=enriched.of_items("totals")[:, _IMPRESSIONS] if counted else _NO_COUNTS,
        clicks=enriched.of_items("totals")[:, _CLICKS] if counted else _NO_COUNTS,
        category_impressions=totals[:, _IMPRESSIONS],
        category_clicks=totals[:, _CLICKS],
        item_ids=enriched.item_ids if policy.names_items else (),
    )
