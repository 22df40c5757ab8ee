"""Does a canary fail more often than its control? Evidence that holds at every look."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class FailureEvidence:
    """Failures of a canary and of a control that is given as many requests, by the same coin.

    If the canary fails no more often, each failure is the canary's with probability 1/2 at most,
    whatever the traffic does. Against that stands the share of the canary among the failures so
    far; the product of likelihood ratios,

        prod theta_t / (1/2) of its failures x (1 - theta_t) / (1/2) of the control's,
        theta_t = max(1/2, (canary + 1) / (canary + control + 2)) before failure t,

    is a test martingale: it ever reaches 1 / alpha with probability alpha at most (Ville). So it
    may be looked at after each failure.

    log_e: logarithm of that product.

    Source: Ramdas, Gruenwald, Vovk and Shafer, "Game-Theoretic Statistics and Safe Anytime-Valid
        Inference", Statistical Science 2023 (predictable plug-in).
    """

    canary: int = 0
    control: int = 0
    log_e: float = 0.0

    def after(self, *, canary: bool) -> FailureEvidence:
        """With one failure more, of the canary or of the control.

        >>> FailureEvidence().after(canary=True).after(canary=True)
        FailureEvidence(canary=2, control=0, log_e=0.28768207245178085)
        """
        theta = max(0.5, (self.canary + 1) / (self.canary + self.control + 2))
        gain = math.log(2 * (theta if canary else 1.0 - theta))
        seen = replace(self, log_e=self.log_e + gain)
        if canary:
            return replace(seen, canary=self.canary + 1)
        return replace(seen, control=self.control + 1)
