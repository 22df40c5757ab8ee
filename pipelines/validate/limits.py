"""Every limit of the gate, and the rule by which an estimate meets one."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from rankstream.features import spec
from rankstream.monitoring.drift import Verdict


@dataclass(frozen=True)
class Limits:
    """What rows must satisfy; bounds of single features stand in ranges.py.

    `odds_ratio_max` bounds the odds of a click against the reference's, either way, and
    `spread_ratio_max` each standard deviation. `false_alarm` is the chance that any of the
    comparisons with the reference fails although none is beyond its limit.
    """

    rows_min: int = 1_000
    users_min: int = 30
    clicks_min: int = 50
    age_ms_max: int = 86_400_000
    unseen_category_share_max: float = 0.05
    odds_ratio_max: float = 2.0
    spread_ratio_max: float = 2.0
    auc_max: float = 0.98
    auc_class_rows_min: int = 20
    false_alarm: float = 0.01

    @property
    def z(self) -> float:
        """Standard errors of doubt, by Bonferroni: two per feature, ctr and categories.

        >>> round(Limits().z, 2)
        3.92
        """
        comparisons = 2 * spec.WIDTH + 2
        return NormalDist().inv_cdf(1.0 - self.false_alarm / (2 * comparisons))


def against(effect: float, se: float, limit: float, z: float) -> Verdict:
    """Whether an effect >= 0, known to within z standard errors, is above a limit.

    The interval decides, not the estimate: all of it above fails, all of it below passes, and
    between too few rows were seen. A negligible effect passes however many rows show it, and a
    large one that may be noise does not fail.
    Source: minimum-effect tests, Murphy and Myors, "Testing the Hypothesis That Treatments Have
    Negligible Effects", Journal of Applied Psychology 1999.

    >>> [str(against(0.5, se, 0.2, 3.0)) for se in (0.01, 0.2)], str(against(0.1, 0.01, 0.2, 3.0))
    (['fail', 'inconclusive'], 'pass')
    """
    if effect - z * se > limit:
        return "fail"
    return "pass" if effect + z * se <= limit else "inconclusive"
