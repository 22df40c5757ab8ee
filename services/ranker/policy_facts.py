"""What a policy read, as a slate keeps it: columns in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Policy
from rankstream.pb.events_pb2 import PolicyFacts
from rankstream.ranking.facts import Facts

_COUNT_MAX: Final = 2**60


def encode_facts(facts: Facts, policy: Policy) -> PolicyFacts:
    """About 5 bytes per candidate, 9 to 11 if the policy counts, 4 for each attribute it reads."""
    counted = policy.thompson is not None
    return PolicyFacts(
        preference=_bytes(facts.preference),
        pctr=b"" if facts.by_logit else _bytes(facts.pctr),
        category=facts.category.tolist(),
        category_name=facts.categories,
        attribute=_bytes(facts.attributes),
        impressions=facts.impressions.tolist(),
        clicks=facts.clicks.tolist(),
        category_impressions=facts.category_impressions.tolist() if counted else (),
        category_clicks=facts.category_clicks.tolist() if counted else (),
        item_id=facts.item_ids,
    )


def decode_facts(kept: PolicyFacts, policy: Policy) -> Facts:
    """The same facts. Raises: ValueError if the columns do not fit one another, or the policy."""
    preference = np.frombuffer(kept.preference, "<f4")
    m, k = len(preference), len(policy.attributes)
    facts = Facts(
        preference=preference,
        pctr=np.frombuffer(kept.pctr, "<f4") if kept.pctr else np.zeros(m, np.float32),
        by_logit=not kept.pctr,
        category=np.array(kept.category, np.intp),
        categories=list(kept.category_name),
        attribute_names=policy.attributes,
        attributes=np.frombuffer(kept.attribute, "<f4").reshape(m if k else 0, k),
        impressions=_integers(kept.impressions),
        clicks=_integers(kept.clicks),
        category_impressions=_integers(kept.category_impressions),
        category_clicks=_integers(kept.category_clicks),
        item_ids=list(kept.item_id),
    )
    _check(facts, policy)
    return facts


def _check(facts: Facts, policy: Policy) -> None:
    m, c = len(facts.preference), len(facts.categories)
    counted, drawn = m * policy.counts, c * (policy.thompson is not None)
    wanted = {
        "pctr": (len(facts.pctr), m),
        "category": (len(facts.category), m),
        "impressions": (len(facts.impressions), counted),
        "clicks": (len(facts.clicks), counted),
        "category_impressions": (len(facts.category_impressions), drawn),
        "category_clicks": (len(facts.category_clicks), drawn),
        "item_id": (len(facts.item_ids), m * policy.names_items),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise ValueError(f"{name} has {found} entries, not {expected}")
    if m and facts.category.max() >= c:
        raise ValueError(f"category {facts.category.max()} of {c}")
    if not np.isfinite(facts.preference).all() or not np.isfinite(facts.pctr).all():
        raise ValueError("a preference or a probability is not finite")


def _bytes(column: npt.NDArray[np.float32]) -> bytes:
    return column.astype("<f4", copy=False).tobytes()


def _integers(column: Sequence[int]) -> npt.NDArray[np.int64]:
    if max(column, default=0) > _COUNT_MAX:
        raise ValueError(f"a count of {max(column)}")
    return np.array(column, np.int64)
