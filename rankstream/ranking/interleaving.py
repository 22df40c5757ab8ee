"""Team-draft interleaving: two rankings in one slate, each item on the team of who picked it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Draft:
    """What is shown, shape (n,) each.

    chosen: candidate of each slot. team: 0 of the first ranking, 1 of the second.
    propensity: P(candidate in this slot | slots above), over the coins.
    """

    chosen: npt.NDArray[np.intp]
    team: npt.NDArray[np.int64]
    propensity: npt.NDArray[np.float64]


def team_draft(
    first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], n: int, rng: np.random.Generator
) -> Draft:
    """Rounds of two picks; a fair coin says who picks first, and each takes its best that is left.

    At the top of a round an item has probability 1/2 for each ranking whose best it is. The second
    pick is the best of the other ranking; who that is follows from the first pick, unless both
    would have made it: then either with 1/2.

    Args:
        first, second: candidates, best first, each of them once in a ranking.
        n: slots; fewer are filled if a ranking is shorter, so that neither runs out.

    Source: Radlinski, Kurup and Joachims, "How Does Clickthrough Data Reflect Retrieval Quality?",
        CIKM 2008.
    """
    n = min(n, len(first), len(second))
    coins = (rng.random((n + 1) // 2) < 0.5).tolist()
    rankings = (first.tolist(), second.tolist())
    shown: set[int] = set()
    lists = tuple(_left(ranking, shown) for ranking in rankings)
    heads = [next(lists[0], -1), next(lists[1], -1)]
    chosen, team, propensity = [], [], []

    def take(by: int, p: float) -> None:
        pick = heads[by]
        chosen.append(pick)
        team.append(by)
        propensity.append(p)
        shown.add(pick)
        for side in (0, 1):
            if heads[side] == pick:
                heads[side] = next(lists[side], -1)

    for coin in coins:
        leader = int(coin)
        same = heads[0] == heads[1]
        take(leader, 1.0 if same else 0.5)
        if len(chosen) < n:
            take(1 - leader, 0.5 if same and heads[0] != heads[1] else 1.0)
    return Draft(np.array(chosen, np.intp), np.array(team, np.int64), np.array(propensity))


def _left(ranking: list[int], shown: set[int]) -> Iterator[int]:
    """The candidates of a ranking that are not shown when their turn comes."""
    return (candidate for candidate in ranking if candidate not in shown)
