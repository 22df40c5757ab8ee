"""What an artefact folder says of itself: manifest.json beside the files that it lists."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rankstream.contracts.base import Contract, Id


class Histogram(Contract):
    """Training distribution of a feature, without missing values.

    k `edges` ascend strictly; `counts` has k + 1 entries, of bins closed on the left:
    counts[0] values < edges[0], counts[i] in [edges[i-1], edges[i]), counts[k] >= edges[k-1].
    Without edges, counts[0] is all values. There is no bin for missing values: a training
    feature has a default instead. Form and check: rankstream/monitoring/histogram.py.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]  # len(edges) + 1


class Utility(Contract):
    """What candidates are ordered by: click * pctr + purchase * pcvr * value.

    `value` names the feature that holds what a purchase of the item is worth, of use where it is
    above 0; elsewhere, and everywhere if it is "", a purchase is worth `value_default`.
    """

    click: float = Field(ge=0)
    purchase: float = Field(ge=0)
    value: str = ""
    value_default: float = Field(default=1.0, gt=0)


class Manifest(Contract):
    """Identity, origin and evidence of a model or an index.

    `files` maps each file of the folder to its sha256; a reader refuses a
    folder whose files do not match (InvalidArtifact) or whose `spec_id` is not
    its own (SpecMismatch).
    """

    model_id: Id
    role: Literal["ranker", "retrieval"]
    family: str  # logistic_regression | mmoe | xgboost | pure_svd | ...
    created_ms: int = Field(gt=0)
    data_version: str
    train_from_ms: int
    train_until_ms: int
    spec_id: str = ""  # rankers: hash of the features that they take, in order
    files: dict[str, str]
    metrics: dict[str, float] = Field(default_factory=dict)
    parity_max_abs: float = Field(ge=0)  # exported graph against the library, probability or score
    parameters: dict[str, str | float | int] = Field(default_factory=dict)
    feature_means: tuple[float, ...] = ()  # rankers: baseline of explanations
    feature_histograms: dict[str, Histogram] = Field(default_factory=dict)
    # rankers: what cuts candidates before they are ranked, weights by feature; empty: nothing does
    prerank: dict[str, float] = Field(default_factory=dict)
    utility: Utility | None = None  # rankers with a pcvr; None: candidates are ordered by logit
    items: int = 0  # retrieval
    dimensions: int = 0
