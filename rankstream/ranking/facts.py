"""What a policy knows of the candidates of one request: arrays, and which of them match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Match

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Facts:
    """m candidates, in the order in which they were scored.

    preference, pctr: shape (m,); the preference is the logit if `by_logit`, else a utility.
    category: shape (m,), index into `categories`, of c different names.
    attribute_names, attributes: k names, and shape (m, k); nan: unknown.
    impressions, clicks: shape (m,), of all users and ever; category_*: shape (c,). Empty if the
        policy does not count.
    item_ids: m texts, or none if the policy does not look at them.
    """

    preference: Floats32
    pctr: Floats32
    by_logit: bool
    category: npt.NDArray[np.intp]
    categories: Sequence[str]
    attribute_names: Sequence[str]
    attributes: Floats32
    impressions: Integers
    clicks: Integers
    category_impressions: Integers
    category_clicks: Integers
    item_ids: Sequence[str] = ()

    def attribute(self, name: str) -> Floats:
        """A column of attributes, shape (m,)."""
        return self.attributes[:, self.attribute_names.index(name)].astype(np.float64)

    def taken(self, order: npt.NDArray[np.intp]) -> Facts:
        """Some candidates, in another order."""
        counted = len(self.impressions) > 0
        return Facts(
            self.preference.take(order),
            self.pctr.take(order),
            self.by_logit,
            self.category.take(order),
            self.categories,
            self.attribute_names,
            self.attributes[order] if self.attribute_names else self.attributes,
            self.impressions.take(order) if counted else self.impressions,
            self.clicks.take(order) if counted else self.clicks,
            self.category_impressions,
            self.category_clicks,
            [self.item_ids[i] for i in order.tolist()] if self.item_ids else (),
        )

    def matching(self, match: Match) -> Mask:
        """Which candidates match, shape (m,)."""
        found = np.ones(len(self.preference), bool)
        if match.categories:
            found &= np.array([name in match.categories for name in self.categories])[self.category]
        if match.item_ids:
            wanted = set(match.item_ids)
            found &= np.array([item in wanted for item in self.item_ids], bool)
        if match.attribute:
            values = self.attribute(match.attribute)
            found &= values >= (-np.inf if match.at_least is None else match.at_least)
            found &= values < (np.inf if match.below is None else match.below)
        if match.impressions_below:
            found &= self.impressions < match.impressions_below
        return found
