"""What rows are compared with: the rows that the champion was trained on, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from pipelines.features.replay import ItemFacts, TrainingRows
from pipelines.promote.ledger import read, standing
from pipelines.validate.files import write_whole
from pipelines.validate.moments import Doubles, Moments, clustered_se
from rankstream.adapters.artifacts import read_manifest
from rankstream.contracts.base import Contract
from rankstream.contracts.manifest import Histogram, Manifest
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from rankstream.monitoring.histogram import (
    decode_histogram,
    encode_histogram,
    reference_histogram,
)

REFERENCE: Final = "reference.json"
HISTOGRAM_ROWS_MAX: Final = 100_000


class Reference(Contract):
    """Rows that were good enough to train on; arrays in the order of the spec.

    `source` names them. `grouped` is true if `sd` comes out of `histograms`. Standard errors
    are None where unknown, as `ctr` and `categories` are in a model's manifest.
    """

    source: str
    spec_id: str
    rows: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    mean_se: tuple[float | None, ...] = ()
    log_sd_se: tuple[float | None, ...] = ()
    histograms: dict[str, Histogram]
    ctr: float | None = None
    ctr_se: float | None = None
    categories: tuple[str, ...] | None = None
    grouped: bool = False


def category_of(rows: TrainingRows, items: Mapping[str, ItemFacts]) -> tuple[str, ...]:
    """Category of each of `rows.items`; "" if nothing is known of it."""
    return tuple(items[item].category if item in items else "" for item in rows.items)


def evenly(n: int, most: int) -> npt.NDArray[np.intp]:
    """At most so many of n places, evenly spaced: rows in order of time stay spread over it."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


def reference_of_rows(
    rows: TrainingRows, measured: Moments, categories: Sequence[str], *, source: str
) -> Reference:
    """A reference that knows all it can.

    Args:
        measured: of the features of `rows`, all finite.
        categories: of each of `rows.items`, as category_of has them.
    """
    sample = rows.features[evenly(len(rows), HISTOGRAM_ROWS_MAX)]
    ctr = float(rows.clicked.mean(dtype=np.float64))
    seen = np.unique(rows.item).tolist()
    return Reference(
        source=source,
        spec_id=spec.SPEC_ID,
        rows=len(rows),
        mean=tuple(measured.mean.tolist()),
        sd=tuple(measured.sd.tolist()),
        mean_se=_known(measured.mean_se),
        log_sd_se=_known(measured.log_sd_se),
        histograms={
            name: encode_histogram(reference_histogram(sample[:, place]))
            for place, name in enumerate(spec.NAMES)
        },
        ctr=ctr,
        ctr_se=_known(
            np.array([clustered_se(rows.clicked.astype(np.float64) - ctr, rows.user, rows.item)])
        )[0],
        categories=tuple(sorted({categories[item] for item in seen})),
    )


def reference_of_manifest(manifest: Manifest) -> Reference:
    """What a ranker's manifest says of its training rows.

    Raises: InvalidArtifact: it lacks a mean or a histogram, or a histogram contradicts itself.
    """
    missing = [name for name in spec.NAMES if name not in manifest.feature_histograms]
    if missing or len(manifest.feature_means) != spec.WIDTH:
        raise InvalidArtifact(
            f"invalid_artifact: {manifest.model_id} has {len(manifest.feature_means)} means and"
            f" lacks histograms of {missing[:3]}, of {spec.WIDTH} features. Nothing was compared."
            " Name a ranker of this spec."
        )
    return Reference(
        source=manifest.model_id,
        spec_id=manifest.spec_id,
        rows=sum(manifest.feature_histograms[spec.NAMES[0]].counts),
        mean=manifest.feature_means,
        sd=tuple(
            grouped_sd(decode_histogram(manifest.feature_histograms[name]).edges, counts[:-1])
            for name in spec.NAMES
            for counts in [decode_histogram(manifest.feature_histograms[name]).counts]
        ),
        histograms=manifest.feature_histograms,
        grouped=True,
    )


def grouped_sd(edges: Doubles, counts: npt.NDArray[np.int64]) -> float:
    """Standard deviation of a histogram, as if values lay evenly within each bin.

    Args:
        edges: shape (k,); counts: shape (k + 1,); what lies beyond an outer edge counts as on it.

    Returns: 0 without two edges. Compare it with a value of the same edges only: wide outer bins
        make it too large.
    """
    if len(edges) < 2 or not counts.sum():
        return 0.0
    low = np.concatenate([edges[:1], edges])
    high = np.concatenate([edges, edges[-1:]])
    share = counts / counts.sum()
    middle, width = (low + high) / 2.0, high - low
    # A bin that holds one value is one step of a float wide: it has no width.
    width = np.where(width <= np.spacing(np.abs(high)) * 2, 0.0, width)
    mean = float(share @ middle)
    return float(np.sqrt(share @ ((middle - mean) ** 2 + width**2 / 12.0)))


def champion_reference(ledger: Path, folder: Path) -> Reference | None:
    """The reference of the ranker that was made champion last.

    Args:
        ledger: file of promotions.
        folder: where gate() leaves its evidence; what it knows of these rows goes first.

    Returns: None if there is no champion, or one of another spec: nothing can be compared.
    Raises: InvalidArtifact: its folder, its reference or the ledger is damaged.
    """
    held = standing(read(ledger), "ranker", "champion")
    if not held:
        return None
    path = folder / held[-1].data_version / REFERENCE
    if path.exists():
        reference = read_reference(path)
        return reference if reference.spec_id == spec.SPEC_ID else None
    manifest = read_manifest(held[-1].uri, held[-1].sha256)
    return reference_of_manifest(manifest) if manifest.spec_id == spec.SPEC_ID else None


def write_reference(path: Path, reference: Reference) -> None:
    """Write it whole or not at all."""
    write_whole(path, reference.model_dump_json(indent=1) + "\n")


def read_reference(path: Path) -> Reference:
    """What write_reference wrote.

    Raises: InvalidArtifact: it is something else.
    """
    try:
        return Reference.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidArtifact(
            f"invalid_artifact: {path} {where}: {first['msg']}. Nothing was compared."
            " Remove it: the manifest of the champion takes its place."
        ) from None


def _known(values: Doubles) -> tuple[float | None, ...]:
    return tuple(value if np.isfinite(value) else None for value in values.tolist())
