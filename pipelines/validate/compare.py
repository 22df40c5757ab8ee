"""Each feature against its reference: does it still vary, has its mean moved, or its spread."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.validate.limits import Limits, against
from pipelines.validate.moments import Moments
from pipelines.validate.ranges import SHIFT_SD_MAX, by_name
from pipelines.validate.reference import HISTOGRAM_ROWS_MAX, Reference, evenly, grouped_sd
from pipelines.validate.verdicts import Check
from rankstream.features import spec
from rankstream.monitoring.drift import Verdict
from rankstream.monitoring.histogram import decode_histogram

Columns = npt.NDArray[np.float32]

CONSTANT: Final = "constant"
MEAN: Final = "mean"
SPREAD: Final = "spread"
_NAMED_MAX: Final = 6


def constant_checks(
    columns: Columns, measured: Moments, reference: Reference | None, skip: frozenset[str]
) -> list[Check]:
    """A feature with one value fails, unless the reference had no other or it is the default.

    Without a reference a default passes: what nobody sends, an item's price, stays at it.
    """
    n, checks, allowed = columns.shape[1], [], []
    for place, (feature, sd) in enumerate(zip(spec.FEATURES, measured.sd.tolist(), strict=True)):
        if feature.name in skip or sd != 0.0:
            continue
        value = float(columns[place, 0])
        default = value == float(np.float32(feature.default))
        if reference is not None and (reference.sd[place] > 0.0 or not _near(
            value, reference.mean[place]
        )):  # fmt: skip
            was = f"mean {reference.mean[place]:.4g}, sd {reference.sd[place]:.4g}"
            found = f"every row has {value:g}; {reference.source} had {was}"
        elif reference is None and not default:
            found = f"every row has {value:g}, which is not the default {feature.default:g}"
        else:
            allowed.append(feature.name)
            continue
        checks.append(Check(CONSTANT, "fail", value, "more than one value", n, found,
                            subject=feature.name))  # fmt: skip
    words = f"constant as before, or at the default: {listed(allowed)}" if allowed else "none"
    checks.append(Check(CONSTANT, "pass", None, "more than one value", n, words))
    return checks


def mean_checks(
    columns: Columns,
    measured: Moments,
    reference: Reference | None,
    limits: Limits,
    skip: frozenset[str],
) -> list[Check]:
    """Means at most so many standard deviations of the reference away, as `against` decides.

    The standard error of the standardised difference is Hedges and Olkin's, "Statistical Methods
    for Meta-Analysis" 1985 section 5.A, with clustered errors in place of 1/n.
    """
    n = columns.shape[1]
    if reference is None:
        return [_nothing(MEAN, n)]
    tally = _Tally(MEAN, n, "sd of the reference")
    for place, name in enumerate(spec.NAMES):
        limit, sd = by_name(SHIFT_SD_MAX, name), reference.sd[place]
        if name in skip or math.isinf(limit) or measured.sd[place] == 0.0:
            continue
        if sd == 0.0:
            tally.add(name, "inconclusive", 0.0, limit, "had one value in the reference")
            continue
        effect = (float(measured.mean[place]) - reference.mean[place]) / sd
        now, then = float(measured.mean_se[place]), _se(reference.mean_se, measured.mean_se, place)
        doubt = _se(reference.log_sd_se, measured.log_sd_se, place)
        se = math.sqrt((now**2 + then**2) / sd**2 + (effect * doubt) ** 2)
        verdict = against(abs(effect), se, limit, limits.z)
        words = (
            f"mean {measured.mean[place]:.4g}, was {reference.mean[place]:.4g}:"
            f" moved {effect:+.2f} ± {limits.z * se:.2f} sd"
        )
        tally.add(name, verdict, abs(effect), limit, words)
    return tally.checks()


def spread_checks(
    columns: Columns,
    measured: Moments,
    reference: Reference | None,
    limits: Limits,
    skip: frozenset[str],
) -> list[Check]:
    """Standard deviations within a ratio of the reference's, as `against` decides on logarithms."""
    n = columns.shape[1]
    if reference is None:
        return [_nothing(SPREAD, n)]
    tally = _Tally(SPREAD, n, "times the reference, or 1 over it")
    for place, name in enumerate(spec.NAMES):
        then = reference.sd[place]
        if name in skip or math.isinf(by_name(SHIFT_SD_MAX, name)) or measured.sd[place] == 0.0:
            continue
        if then == 0.0:
            words = "had one value in the reference"
            tally.add(name, "inconclusive", 1.0, limits.spread_ratio_max, words)
            continue
        now = float(measured.sd[place])
        if reference.grouped:
            now = _regrouped(columns[place], reference, name)
        se = math.hypot(
            float(measured.log_sd_se[place]), _se(reference.log_sd_se, measured.log_sd_se, place)
        )
        effect = abs(math.log(max(now, 1e-12) / then))
        verdict = against(effect, se, math.log(limits.spread_ratio_max), limits.z)
        words = f"sd {now:.4g}, was {then:.4g}: {now / then:.2f} times"
        tally.add(name, verdict, math.exp(effect), limits.spread_ratio_max, words)
    return tally.checks()


def listed(names: Iterable[str]) -> str:
    """The first few names and how many more there are.

    >>> listed(["a", "b"]), listed("abcdefgh")
    ('a, b', 'a, b, c, d, e, f and 2 more')
    """
    every = list(names)
    more = f" and {len(every) - _NAMED_MAX} more" if len(every) > _NAMED_MAX else ""
    return ", ".join(every[:_NAMED_MAX]) + more


class _Tally:
    """A check per failing feature, then one for what is unclear and one for what passed."""

    def __init__(self, kind: str, n: int, unit: str) -> None:
        self._kind, self._n, self._unit = kind, n, unit
        self._failed: list[Check] = []
        self._unclear: list[tuple[float, str]] = []
        self._passed: list[tuple[float, float, str]] = []

    def add(self, name: str, verdict: Verdict, value: float, limit: float, words: str) -> None:
        if verdict == "fail":
            threshold = f"at most {limit:g} {self._unit}"
            self._failed.append(
                Check(self._kind, verdict, value, threshold, self._n, words, subject=name)
            )
        elif verdict == "inconclusive":
            self._unclear.append((value, name))
        else:
            self._passed.append((value / limit, value, name))

    def checks(self) -> list[Check]:
        checks, threshold = list(self._failed), f"at most a limit per feature, {self._unit}"
        if self._unclear:
            names = listed(name for _, name in sorted(self._unclear, reverse=True))
            words = f"too few rows, or one value in the reference: {names}"
            worst = max(value for value, _ in self._unclear)
            unclear = Check(self._kind, "inconclusive", worst, threshold, self._n, words)
            checks.append(unclear)
        if self._passed:
            _, value, name = max(self._passed)
            words = f"{len(self._passed)} features; nearest to its limit: {name}"
            checks.append(Check(self._kind, "pass", value, threshold, self._n, words))
        return checks


def _nothing(kind: str, n: int) -> Check:
    words = "no reference: there is no champion of this spec yet"
    return Check(kind, "inconclusive", None, "", n, words)


def _se(known: tuple[float | None, ...], instead: npt.NDArray[np.float64], place: int) -> float:
    """The reference's standard error; if it is not known, as if it had as many rows as these."""
    stored = known[place] if known else None
    return float(instead[place]) if stored is None else stored


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)


def _regrouped(column: npt.NDArray[np.float32], reference: Reference, name: str) -> float:
    """The spread by the bins of the reference, so that both err alike."""
    empty = decode_histogram(reference.histograms[name]).empty()
    histogram = empty.add(column[evenly(len(column), HISTOGRAM_ROWS_MAX)])
    return grouped_sd(histogram.edges, histogram.counts[:-1])
