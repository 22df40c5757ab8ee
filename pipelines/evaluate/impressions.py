"""Held-out impressions with their labels, parsed once: past this module nobody checks again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidInput

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

CLASSES: Final = 2


def refusal(what: str, advice: str) -> InvalidInput:
    """The error of input that no metric can be computed from: what and its limit, what to do."""
    return InvalidInput(f"invalid_input: {what}. Nothing was evaluated. {advice}")


@dataclass(frozen=True, eq=False)
class Impressions:
    """n held-out impressions whose attribution window has closed.

    `clicked` uint8, shape (n,), 0 or 1, both present; `user` int64, shape (n,), in [0, users);
    `query` int64, shape (n,), in [0, queries), the request that an impression was served for, or
    None: then nothing is said about lists.
    """

    clicked: npt.NDArray[np.uint8]
    user: Ints
    users: int
    query: Ints | None = None

    def __len__(self) -> int:
        return len(self.clicked)

    @classmethod
    def of(
        cls, clicked: npt.ArrayLike, user: npt.ArrayLike, query: npt.ArrayLike | None = None
    ) -> Impressions:
        """Impressions from the columns of a log.

        Args:
            clicked: shape (n,), 0 or 1; user, query: shape (n,), ids of any sortable type.

        Raises: InvalidInput: empty, lengths that differ, a label that is neither 0 nor 1, one
            class only, a query that two users share.
        """
        label = labels(clicked)
        code, users = codes("user", user, len(label))
        if query is None:
            return cls(label, code, users)
        request, queries = codes("query", query, len(label))
        _check_one_user_each(request, queries, code)
        return cls(label, code, users, request)

    def take(self, rows: Rows) -> Impressions:
        """Some of the rows, of the same universe of users: a resample of users fits both."""
        query = None if self.query is None else self.query[rows]
        return replace(self, clicked=self.clicked[rows], user=self.user[rows], query=query)


def labels(clicked: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Labels as uint8, shape (n,). Raises: InvalidInput, see `Impressions.of`."""
    given = np.asarray(clicked)
    if given.ndim != 1 or not len(given):
        raise refusal(f"labels have shape {given.shape} (one dimension, at least 1)", "Send rows.")
    wrong = np.flatnonzero(~np.isin(given, (0, 1)))
    if len(wrong):
        raise refusal(
            f"label of row {wrong[0]} is {given[wrong[0]]} and {len(wrong)} rows are like it"
            " (0 or 1)",
            "Leave out impressions whose attribution window is open.",
        )
    if len(np.unique(given)) < CLASSES:
        raise refusal(
            f"all {len(given)} labels are {given[0]:g} (both 0 and 1 are needed)",
            "Evaluate on a longer test period.",
        )
    return given.astype(np.uint8)


def probabilities(pctr: npt.ArrayLike, n: int) -> Doubles:
    """pctr as float64, shape (n,). Raises: InvalidInput: another shape, nan, outside [0, 1]."""
    given = np.asarray(pctr, np.float64)
    if given.shape != (n,):
        raise refusal(
            f"pctr has shape {given.shape} beside {n} labels (the same length)",
            "Predict every row once.",
        )
    wrong = np.flatnonzero(~((given >= 0) & (given <= 1)))
    if len(wrong):
        raise refusal(
            f"pctr of row {wrong[0]} is {given[wrong[0]]:g} and {len(wrong)} rows are like it"
            " (limit 0 to 1)",
            "Evaluate probabilities, not logits; mend the model if it is nan.",
        )
    return given


def codes(name: str, column: npt.ArrayLike, n: int) -> tuple[Ints, int]:
    """Ids as int64 codes, shape (n,), and how many there are. Raises: InvalidInput: shape."""
    given = np.asarray(column)
    if given.shape != (n,):
        raise refusal(
            f"column {name} has shape {given.shape} beside {n} labels (the same length)",
            f"Give every row its {name}.",
        )
    unique, code = np.unique(given, return_inverse=True)
    return code.astype(np.int64), len(unique)


def _check_one_user_each(query: Ints, queries: int, user: Ints) -> None:
    owner = np.empty(queries, np.int64)
    owner[query] = user
    wrong = np.flatnonzero(owner[query] != user)
    if len(wrong):
        raise refusal(
            f"the query of row {wrong[0]} has rows of two users (limit 1)",
            "Number queries over all users.",
        )
