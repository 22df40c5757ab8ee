"""How long purchases take to come, and so how many of an impression's have come by its age.

Source: Chapelle, "Modeling Delayed Feedback in Display Advertising", KDD 2014. The delays are
counted here, not modelled, as in Yoshikawa and Imai, "A Nonparametric Delayed Feedback Model for
Conversion Rate Prediction", 2018 (arXiv 1802.00255), and taken to be alike for all impressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.columns import EventColumns, Kind
from rankstream.contracts.labels import Key, LabelChange

Ints = npt.NDArray[np.int64]

# With fewer delays nothing is said of impressions whose window is open.
PURCHASES_MIN: Final = 50


def purchase_delays_ms(columns: EventColumns, labels: Sequence[LabelChange]) -> Ints:
    """From each label's impression to the first purchase after it, shape (n,); -1: none so far."""
    bought: dict[Key, list[int]] = {}
    rows = np.flatnonzero(columns.kind == Kind.PURCHASE)
    for user, request, item, time_ms in zip(
        *(codes[rows].tolist() for codes in (columns.user_id, columns.request_id, columns.item_id)),
        columns.event_time_ms[rows].tolist(),
        strict=True,
    ):
        key = (columns.strings[user], columns.strings[request], columns.strings[item])
        bought.setdefault(key, []).append(time_ms)
    out = np.full(len(labels), -1, np.int64)
    for place, label in enumerate(labels):
        if label.new.purchased:
            shown_ms = label.impression_time_ms
            out[place] = min(
                time_ms - shown_ms for time_ms in bought[label.key] if time_ms >= shown_ms
            )
    return out


def purchases_so_far(
    delay_ms: Ints, age_ms: Ints, window_ms: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Who has bought, and how much it means that somebody has not.

    Args:
        delay_ms: shape (n,), from impression to purchase, -1: none so far.
        age_ms: shape (n,), of each impression now; its window is open below `window_ms`.

    Returns:
        purchased: int8, shape (n,), 1; 0: not within the window; -1: not so far.
        purchases_come: float32, shape (n,), which share of an impression's purchases comes by its
            age: 1 only if its window has closed; 0, and then `purchased` is -1, if none is that
            quick or there are fewer than PURCHASES_MIN to tell from.
    """
    closed = age_ms >= window_ms
    known = np.sort(delay_ms[closed & (delay_ms >= 0)])
    # One more than there are: a purchase later than all of them may come while a window is open.
    come = np.searchsorted(known, age_ms, side="right") / (len(known) + 1)
    if len(known) < PURCHASES_MIN:
        come[:] = 0.0
    come[closed] = 1.0
    bought = (delay_ms >= 0).astype(np.int8)
    waiting = ~closed & ((bought == 0) | (come == 0.0))
    return np.where(waiting, np.int8(-1), bought), come.astype(np.float32)
