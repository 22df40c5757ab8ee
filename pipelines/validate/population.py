"""The rows as a whole: how many, how old, how often clicked, of which categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from pipelines.features.replay import TrainingRows
from pipelines.validate.limits import Limits, against
from pipelines.validate.moments import clustered_se
from pipelines.validate.reference import Reference
from pipelines.validate.verdicts import ROWS_NAMED, Check
from rankstream.features import spec
from rankstream.monitoring.drift import Verdict

_HOUR_MS: Final = 3_600_000

SHAPE: Final = "shape"
ROWS: Final = "rows"
USERS: Final = "users"
CLICKS: Final = "clicks"
CTR: Final = "ctr"
FRESHNESS: Final = "freshness"
CATEGORIES: Final = "categories"


def shape_check(rows: TrainingRows) -> Check:
    """The arrays are of one length, of this spec, and point to users and items that there are."""
    n, wrong = len(rows), []
    if rows.features.shape != (n, spec.WIDTH) or rows.features.dtype != np.float32:
        wrong.append(f"features are {rows.features.dtype} {rows.features.shape}")
    for name, array in (("time_ms", rows.time_ms), ("user", rows.user), ("item", rows.item)):
        if array.shape != (n,):
            wrong.append(f"{name} has shape {array.shape}")
    for name, array, known in (("user", rows.user, rows.users), ("item", rows.item, rows.items)):
        if len(array) and not 0 <= int(array.min()) <= int(array.max()) < len(known):
            wrong.append(f"{name} is not within 0 and {len(known) - 1}")
    threshold = f"features float32 ({n}, {spec.WIDTH}), the others ({n},)"
    verdict: Verdict = "fail" if wrong else "pass"
    return Check(SHAPE, verdict, float(len(wrong)), threshold, n, "; ".join(wrong) or "so they are")


def size_checks(rows: TrainingRows, limits: Limits) -> list[Check]:
    """Enough rows, users and clicks to learn from."""
    n = len(rows)
    counts = (
        (ROWS, n, limits.rows_min),
        (USERS, len(np.unique(rows.user)), limits.users_min),
        (CLICKS, int(np.count_nonzero(rows.clicked == 1)), limits.clicks_min),
    )
    checks = []
    for name, count, least in counts:
        verdict: Verdict = "pass" if count >= least else "fail"
        found = f"{count} {name}"
        if name == CLICKS and count in (0, n):
            verdict, found = "inconclusive", "the labels are of one kind: see ctr"
        checks.append(Check(name, verdict, float(count), f"at least {least}", n, found))
    return checks


def ctr_checks(rows: TrainingRows, reference: Reference | None, limits: Limits) -> list[Check]:
    """Both labels occur, and the odds of a click are within a ratio of the reference's."""
    n = len(rows)
    ctr = float(rows.clicked.mean(dtype=np.float64))
    if ctr in (0.0, 1.0):
        found = f"every label is {int(ctr)}"
        return [Check(CTR, "fail", ctr, "above 0, below 1", n, found, rows=_first(n))]
    if not 0.0 < ctr < 1.0:
        found = "labels are not 0 or 1: see label"
        return [Check(CTR, "inconclusive", None, "above 0, below 1", n, found)]
    if reference is None or reference.ctr is None or not 0.0 < reference.ctr < 1.0:
        found = f"{ctr:.4f} clicks per impression; the reference does not know its own"
        threshold = "above 0, below 1, and within the reference's odds"
        return [Check(CTR, "inconclusive", ctr, threshold, n, found)]
    now = clustered_se(rows.clicked.astype(np.float64) - ctr, rows.user, rows.item)
    then = now if reference.ctr_se is None else reference.ctr_se
    se = math.hypot(now / (ctr * (1 - ctr)), then / (reference.ctr * (1 - reference.ctr)))
    effect = math.log(ctr / (1 - ctr)) - math.log(reference.ctr / (1 - reference.ctr))
    verdict = against(abs(effect), se, math.log(limits.odds_ratio_max), limits.z)
    threshold = f"odds at most {limits.odds_ratio_max:g} times the reference's, or 1 over it"
    found = (
        f"{ctr:.4f} clicks per impression, was {reference.ctr:.4f}:"
        f" odds {math.exp(effect):.2f} times"
    )
    return [Check(CTR, verdict, math.exp(abs(effect)), threshold, n, found)]


def freshness_check(rows: TrainingRows, as_of_ms: int, limits: Limits) -> Check:
    """The newest row is of late, and not of the future."""
    age_ms = as_of_ms - int(rows.time_ms.max())
    fresh = 0 <= age_ms <= limits.age_ms_max
    return Check(
        FRESHNESS,
        "pass" if fresh else "fail",
        age_ms / _HOUR_MS,
        f"0 to {limits.age_ms_max / _HOUR_MS:g} h",
        len(rows),
        f"the newest row is {age_ms / _HOUR_MS:.2f} h older than {as_of_ms} ms",
        rows=() if fresh else (int(rows.time_ms.argmax()),),
    )


def category_check(
    rows: TrainingRows, categories: Sequence[str], reference: Reference | None, limits: Limits
) -> Check:
    """Few rows are of a category that the reference never saw; "" is the category of none.

    Args:
        categories: of each of `rows.items`.
    """
    n, limit = len(rows), limits.unseen_category_share_max
    threshold = f"at most {limit:.0%} of rows in unseen categories"
    if reference is None or reference.categories is None:
        found = "the reference does not know its categories"
        return Check(CATEGORIES, "inconclusive", None, threshold, n, found)
    known = set(reference.categories)
    unseen = np.array([category not in known for category in categories])[rows.item]
    share = float(unseen.mean())
    verdict = against(share, clustered_se(unseen - share, rows.user, rows.item), limit, limits.z)
    places = np.flatnonzero(unseen)
    names = sorted({repr(categories[item]) for item in np.unique(rows.item[places]).tolist()})
    found = f"{len(places)} of {n} rows"
    if names:
        found += f", in {len(names)} unseen: {', '.join(names[:3])}"
    first = tuple(places[:ROWS_NAMED].tolist()) if verdict != "pass" else ()
    return Check(CATEGORIES, verdict, share, threshold, n, found, rows=first)


def _first(n: int) -> tuple[int, ...]:
    return tuple(range(min(n, ROWS_NAMED)))
