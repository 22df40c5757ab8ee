"""What a check says: its verdict beside the value, the limit and how much data it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from rankstream.monitoring.drift import Verdict


@dataclass(frozen=True)
class Check:
    """One question with an answer.

    `subject` says of what, as label pairs; `value` and `threshold` share a unit, which the name
    carries; `reason` is why a verdict is inconclusive or an error, else "".
    """

    name: str
    subject: tuple[tuple[str, str], ...]
    verdict: Verdict
    value: float | None
    threshold: float
    n: int
    reason: str = ""


def check_limit(
    name: str,
    subject: tuple[tuple[str, str], ...],
    value: float | None,
    *,
    limit: float,
    n: int,
    n_min: int,
) -> Check:
    """Pass up to `limit`, fail above it, inconclusive under `n_min` observations."""
    if value is None or n < n_min:
        reason = f"{n} observations (at least {n_min} needed)"
        return Check(name, subject, "inconclusive", value, limit, n, reason)
    return Check(name, subject, "fail" if value > limit else "pass", value, limit, n)
