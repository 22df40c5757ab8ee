"""Which slice each impression belongs to: by the item's popularity, the user's past, an attribute.

A slice column is an array of names, shape (n,), one per impression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.impressions import Impressions, Ints, Rows, refusal

Names = npt.NDArray[np.str_]

HEAD_SHARE: Final = 0.5
TORSO_SHARE: Final = 0.8
NEW_BELOW: Final = 10
POWER_FROM: Final = 100

SLICE_IMPRESSIONS_MIN: Final = 500
SLICE_USERS_MIN: Final = 50
SLICE_CLASS_MIN: Final = 50
SLICES_MAX: Final = 50


def item_popularity(item: Ints, training_impressions: Ints) -> Names:
    """`head`, `torso` or `tail` of each impression, shape (n,).

    The most shown items that together hold HEAD_SHARE of the training impressions are head (the
    item that crosses the line included), the next up to TORSO_SHARE torso, the rest and what
    training never showed tail. Items shown equally often share a slice, the more popular one.

    Args: item: shape (n,), rows of items; training_impressions: shape (items,).
    Raises: InvalidInput: an item outside [0, items), or no training impressions.
    """
    items, total = len(training_impressions), int(training_impressions.sum())
    if not total or not len(item) or item.min() < 0 or item.max() >= items:
        raise refusal(
            f"{total} training impressions (at least 1) of {items} items, and {len(item)} test rows"
            f" of items up to {item.max() if len(item) else 'none'} (limit 0 to {items - 1})",
            "Count training impressions over the whole catalogue.",
        )
    _, level = np.unique(-training_impressions, return_inverse=True)
    held = np.bincount(level, training_impressions)
    share_above = (np.cumsum(held) - held) / total
    name = np.select(
        [share_above < HEAD_SHARE, share_above < TORSO_SHARE], ["head", "torso"], "tail"
    )
    return name[level][item].astype(np.str_)


def user_activity(earlier: Ints) -> Names:
    """`new` below NEW_BELOW, `power` from POWER_FROM, else `regular`, shape (n,).

    Args: earlier: shape (n,), impressions that the row's user had in training. Of training and not
        of all time before the row, so that a user has one slice and clusters stay whole.
    """
    return np.select(
        [earlier < NEW_BELOW, earlier < POWER_FROM], ["new", "regular"], "power"
    ).astype(np.str_)


def earlier_impressions(training_user: Ints, user: Ints) -> Ints:
    """Training impressions of each row's user. Args: shapes (m,) and (n,), codes from 0."""
    users = 1 + max(int(training_user.max(initial=0)), int(user.max(initial=0)))
    return np.bincount(training_user, minlength=users).astype(np.int64)[user]


@dataclass(frozen=True, eq=False)
class Slice:
    """The rows of one value of one attribute; `too_small` says why it cannot be judged, else ""."""

    attribute: str
    value: str
    rows: Rows
    users: int
    clicks: int
    too_small: str

    @property
    def n(self) -> int:
        """Impressions."""
        return len(self.rows)


def slices_of(impressions: Impressions, columns: Mapping[str, npt.ArrayLike]) -> list[Slice]:
    """Every slice of every column, largest first within a column.

    A slice below SLICE_IMPRESSIONS_MIN impressions, SLICE_USERS_MIN users or SLICE_CLASS_MIN
    impressions of either class is too small to judge: its interval would be wider than what it
    guards, and a bootstrap of few users is too narrow on top.

    Raises: InvalidInput: a column of another length, or of more than SLICES_MAX values.
    """
    found = []
    for attribute, column in columns.items():
        given = np.asarray(column)
        if given.shape != (len(impressions),):
            raise refusal(
                f"slice column {attribute} has shape {given.shape} beside {len(impressions)}"
                " impressions (the same length)",
                "Give every impression a value.",
            )
        values, code, n = np.unique(given, return_inverse=True, return_counts=True)
        if len(values) > SLICES_MAX:
            raise refusal(
                f"slice column {attribute} has {len(values)} values (limit {SLICES_MAX})",
                "Group the values.",
            )
        for index in np.argsort(-n, kind="stable").tolist():
            rows = np.flatnonzero(code == index)
            found.append(_slice(impressions, attribute, str(values[index]), rows))
    return found


def _slice(impressions: Impressions, attribute: str, value: str, rows: Rows) -> Slice:
    users = len(np.unique(impressions.user[rows]))
    clicks = int(impressions.clicked[rows].sum())
    limits = (
        ("impressions", len(rows), SLICE_IMPRESSIONS_MIN),
        ("users", users, SLICE_USERS_MIN),
        ("clicks", clicks, SLICE_CLASS_MIN),
        ("impressions without a click", len(rows) - clicks, SLICE_CLASS_MIN),
    )
    lacks = [f"{n} {what} (at least {limit})" for what, n, limit in limits if n < limit]
    return Slice(attribute, value, rows, users, clicks, "; ".join(lacks))
