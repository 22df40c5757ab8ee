"""A feature's rows against its reference, as inline SVG."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.figures import INK, QUIET, SKY_BLUE, STYLE, VERMILLION, svg
from pipelines.validate.moments import Doubles
from pipelines.validate.ranges import Range
from pipelines.validate.schema import outside
from rankstream.monitoring.histogram import Histogram

BINS: Final = 32
STRAYS_MAX: Final = 50


def histogram_svg(
    values: npt.NDArray[np.float32],
    allowed: Range,
    reference: Histogram | None,
    *,
    title: str,
    source: str = "reference",
) -> str:
    """Bars of the rows, an outline of the reference, and the ends of the range where they are near.

    Args:
        values: shape (n,), of a feature; what is not finite or far away is counted below.
        reference: None if there is none.
        source: what the outline is called.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(4.8, 2.1), layout="constrained")
        _draw(figure.subplots(), values, allowed, reference, source)
        return svg(figure, title)


def _draw(
    axes: Axes,
    values: npt.NDArray[np.float32],
    allowed: Range,
    reference: Histogram | None,
    source: str,
) -> None:
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = _window(finite, allowed, reference)
    edges = np.linspace(low, high, BINS + 1)
    share = np.histogram(finite, edges)[0] / max(len(values), 1)
    axes.bar(
        edges[:-1], share, np.diff(edges), align="edge", color=SKY_BLUE, edgecolor="white",
        linewidth=0.4, label="these rows",
    )  # fmt: skip
    if reference is not None and reference.n:
        outline = spread_over(reference, edges) / reference.n
        axes.stairs(outline, edges, color=INK, linewidth=1.4, label=source)
    for end in (allowed.low, allowed.high):
        if low <= end <= high:
            axes.axvline(end, color=VERMILLION, linestyle=(0, (4, 3)), linewidth=1.1)
    # A bar of a few rows in many is too low to see.
    seen = outside(values, allowed) & (values >= low) & (values <= high)
    stray = np.unique(values[seen])[:STRAYS_MAX]
    if len(stray):
        floor = np.zeros(len(stray))
        axes.plot(
            stray, floor, "v", color=VERMILLION, markersize=6, clip_on=False, label="out of range"
        )
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("share of rows", fontsize=8, color=QUIET)
    axes.set_xlabel(_beyond(values, low, high), fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET, length=2)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3)


def spread_over(histogram: Histogram, edges: Doubles) -> Doubles:
    """Counts in other bins, as if values lay evenly within each of the histogram's.

    Args:
        edges: shape (k + 1,), ascending; what is outside is left out.

    Returns: float64, shape (k,).
    """
    counts = histogram.counts[1:-2].astype(np.float64)
    if len(histogram.edges) < 2:
        return np.zeros(len(edges) - 1)
    cumulative = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(np.interp(edges, histogram.edges, cumulative))


def _window(finite: Doubles, allowed: Range, reference: Histogram | None) -> tuple[float, float]:
    """What to show: nearly all rows and the reference; a range only as far as rows reach."""
    ends = [] if not len(finite) else [float(q) for q in np.quantile(finite, (0.001, 0.999))]
    if reference is not None and len(reference.edges):
        ends += [float(reference.edges[0]), float(reference.edges[-1])]
    if not ends:
        ends = [max(allowed.low, -1.0), min(allowed.high, 1.0)]
    low, high = min(ends), max(ends)
    if len(finite):
        # A few rows far off must not squeeze all others into one bar; what is near is drawn.
        wide = 2.0 * (high - low)
        low = min([low, *(v for v in [float(finite.min())] if v >= low - wide)])
        high = max([high, *(v for v in [float(finite.max())] if v <= high + wide)])
    reach = max(high - low, 1e-3 * abs(high), 1e-3)
    near = [end for end in (allowed.low, allowed.high) if low - reach < end < high + reach]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.03 * max(high - low, reach)
    return low - margin, high + margin


def _beyond(values: npt.NDArray[np.float32], low: float, high: float) -> str:
    lost = int((~np.isfinite(values)).sum())
    beyond = int(((values < low) | (values > high)).sum()) - int(np.isinf(values).sum())
    parts = [f"{lost} not finite"] if lost else []
    parts += [f"{beyond} beyond the axis"] if beyond > 0 else []
    return f"not drawn: {', '.join(parts)}" if parts else ""
