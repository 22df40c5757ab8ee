"""From ordered candidates to a slate: which item goes into which slot, and how likely that was."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Slate:
    """What is shown.

    chosen: shape (n,), candidate of each slot, top slot first, all different.
    propensity: shape (n,), P(candidate in this slot | slots above, request), in (0, 1].
    explored: shape (n,), True where the coin said explore.
    """

    chosen: npt.NDArray[np.intp]
    propensity: npt.NDArray[np.float64]
    explored: npt.NDArray[np.bool_]


def generator(salt: str, request_id: str) -> np.random.Generator:
    """The randomness of one request: equal in every process and version of this machine's numpy.

    The salt parts policies: two of them never share their coins. U+001F parts the two texts, so
    that ("a", "bc") and ("ab", "c") differ.
    """
    digest = blake2b(f"{salt}\x1f{request_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def epsilon_greedy(
    order: npt.NDArray[np.intp], n: int, epsilon: float, rng: np.random.Generator
) -> Slate:
    """Fill n slots from the top: the best remaining candidate, or with probability epsilon any.

    With r candidates remaining at a slot,

        P(item | slots above) = epsilon / r + (1 - epsilon) * [item is the best remaining],

    which is exact: the coin and the draw of a slot depend on nothing but the generator.

    Args:
        order: candidates, best first, shape (m,).
        n: slots; fewer are filled if there are fewer candidates.
        epsilon: in [0, 1].
    """
    n = min(n, len(order))
    remaining = order.tolist()
    # Drawn for all slots at once, so that slot s takes the same numbers whatever came before.
    explored = rng.random(n) < epsilon
    draw = rng.random(n).tolist()
    chosen = np.empty(n, np.intp)
    greedy = np.empty(n, bool)
    for slot, explores in enumerate(explored.tolist()):
        place = int(draw[slot] * len(remaining)) if explores else 0
        chosen[slot] = remaining.pop(place)
        greedy[slot] = place == 0
    left = len(order) - np.arange(n)
    propensity = epsilon / left + (1.0 - epsilon) * greedy
    return Slate(chosen, propensity, explored)
