"""When a key that has had no event for long is forgotten."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", int, npt.NDArray[np.int64])

STATE_TTL_MS: Final = 400 * 86_400_000
STEPS: Final = 32


def expiry_ms(now_ms: T, ttl_ms: int) -> T:
    """Event time before which keys are forgotten: it moves on by steps, a 32nd of the TTL each.

    So that what is forgotten depends on the time reached, and not on when one looked.

    >>> expiry_ms(100_000, 3_199), expiry_ms(100_001, 3_199)
    (96801, 96801)
    """
    step_ms = ttl_ms // STEPS + 1
    return now_ms // step_ms * step_ms - ttl_ms
