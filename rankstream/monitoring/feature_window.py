"""The served features of one model, now against its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from rankstream.monitoring.drift import Drift, drift
from rankstream.monitoring.histogram import Floats, Histogram, reference_histogram
from rankstream.monitoring.panes import Panes

Source = Literal["training", "first_window", "none"]


@dataclass(frozen=True)
class FeatureDrift:
    """Drift of one feature; None while it has no reference or no data."""

    feature: str
    reference: Source
    drift: Drift | None


@dataclass(frozen=True, eq=False)
class _Columns:
    """One histogram per feature, merged side by side."""

    histograms: tuple[Histogram, ...]

    def merge(self, other: Self) -> Self:
        pairs = zip(self.histograms, other.histograms, strict=True)
        return type(self)(tuple(one.merge(two) for one, two in pairs))


class FeatureWindow:
    """A sliding window of feature rows, compared with the model's training histograms.

    Features that the training left without a histogram are compared with the first
    `first_window_rows` rows seen here: that shows change, not skew from training. Those rows are
    kept only until the reference is made from them.
    """

    def __init__(
        self,
        features: Sequence[str],
        training: Mapping[str, Histogram],
        *,
        first_window_rows: int,
        pane_ms: int,
        panes: int,
    ) -> None:
        self._features = tuple(features)
        self._training = training
        self._first_window_rows = first_window_rows
        self._first: list[tuple[int, npt.NDArray[np.float32]]] = []
        self._panes: Panes[_Columns] = Panes(pane_ms=pane_ms, count=panes)
        self._reference: tuple[Histogram, ...] | None = None
        if set(features) <= set(training):
            self._reference = tuple(training[name] for name in features)

    def add(self, time_ms: int, rows: npt.NDArray[np.float32]) -> None:
        """Take in rows, float32, shape (n, d), of about the same event time."""
        assert rows.shape[1] == len(self._features), "one column per feature"
        if self._reference is not None:
            self._count(time_ms, rows, self._reference)
            return
        self._first.append((time_ms, rows))
        if sum(len(held) for _, held in self._first) < self._first_window_rows:
            return
        whole = np.concatenate([held for _, held in self._first])
        self._reference = tuple(
            self._training.get(name) or reference_histogram(column)
            for name, column in zip(self._features, whole.T, strict=True)
        )
        # The reference rows are not counted again as current: they would hide a change.
        self._first = []

    def advance(self, as_of_ms: int) -> None:
        """Let rows older than the window go."""
        self._panes.advance(as_of_ms)

    def compare(self) -> list[FeatureDrift]:
        """Drift of every feature over the window, in order of the features."""
        current = self._panes.merged()
        found = []
        for column, name in enumerate(self._features):
            source: Source = "training" if name in self._training else "first_window"
            if self._reference is None:
                found.append(FeatureDrift(name, "none", None))
            elif current is None:
                found.append(FeatureDrift(name, source, None))
            else:
                measured = drift(self._reference[column], current.histograms[column])
                found.append(FeatureDrift(name, source, measured))
        return found

    def _count(self, time_ms: int, rows: Floats, reference: tuple[Histogram, ...]) -> None:
        columns = zip(reference, rows.T, strict=True)
        counted = _Columns(tuple(histogram.empty().add(column) for histogram, column in columns))
        self._panes.add(time_ms, counted)
