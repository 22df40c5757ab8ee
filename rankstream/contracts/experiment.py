"""What an experiment is, and what its scorecard says.

Shares of traffic are basis points (bp): integers in [0, 10 000], so that a bucket in [0, 10 000)
falls on exactly one side of a boundary. Money is in micros (1e-6 of the currency). A model that
breaks one of the rules below raises `pydantic.ValidationError`, whose `type` names the rule
(`experiment_weights`, ...).
"""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rankstream.contracts.base import Contract

BUCKETS = 10_000
"""Resolution of every share of traffic; one bucket is one basis point."""

VARIANTS_MAX = 16
OVERRIDES_MAX = 1_000
SEPARATOR = "\x1f"
"""Stands between salt and unit in a hash key; banned in salts, so that no two pairs share a key."""

Name = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")

Status = Literal["draft", "running", "stopped"]
Method = Literal["anytime_delta", "anytime_fieller", "fixed_delta", "fixed_fieller"]
Verdict = Literal["better", "worse", "no_difference_yet", "no_data", "srm_mismatch"]
Flag = Literal["srm_mismatch", "mixed_units", "labels_dropped", "guardrail_worse"]


class Variant(Contract):
    """One arm: the share of the experiment's units that get it, the model alias that serves them,
    and the name of the policy behind the model ("": the default one).

    With `interleave_with` both models answer each request and their rankings are interleaved by
    team draft; which of them an item came from is in the slate.
    """

    name: str = Name
    weight_bp: int = Field(gt=0, le=BUCKETS)
    model: str = Name
    policy: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")
    interleave_with: str = Field(default="", max_length=100, pattern=r"^[A-Za-z0-9_.:-]*$")


class Experiment(Contract):
    """A definition: who is in, who gets what, and which metric decides.

    The experiment owns the buckets [layer_start_bp, layer_start_bp + traffic_bp) of its layer.
    Experiments of one layer never share a unit as long as those ranges are disjoint; layers are
    independent of one another. Ramping up raises `traffic_bp`; leave room behind `layer_start_bp`
    for it.
    """

    id: str = Name
    salt: str = Field(min_length=1, max_length=100)
    layer: str = Field(min_length=1, max_length=100)
    layer_start_bp: int = Field(default=0, ge=0, lt=BUCKETS)
    unit: Literal["user_id"] = "user_id"
    variants: tuple[Variant, ...]
    traffic_bp: int = Field(ge=0, le=BUCKETS)
    overrides: dict[str, str] = Field(default_factory=dict, max_length=OVERRIDES_MAX)
    status: Status = "draft"
    start_ms: int | None = Field(default=None, gt=0)
    stop_ms: int | None = Field(default=None, gt=0)
    version: int = Field(default=1, ge=1)
    control: str
    primary_metric: str = Name
    guardrails: tuple[str, ...] = ()
    planned_lift: float = Field(default=0.1, gt=0, le=10)
    """Relative lift the experiment is sized for; the anytime interval is tightest around it."""

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        names = [variant.name for variant in self.variants]
        if not 2 <= len(names) <= VARIANTS_MAX or len(set(names)) != len(names):
            raise PydanticCustomError(
                "experiment_variants",
                "experiment {id} needs 2 to {most} variants with different names, got {names}",
                {"id": self.id, "most": VARIANTS_MAX, "names": ", ".join(names)},
            )
        total = sum(variant.weight_bp for variant in self.variants)
        if total != BUCKETS:
            raise PydanticCustomError(
                "experiment_weights",
                "experiment {id}: weight_bp sum to {total}, must be {buckets}",
                {"id": self.id, "total": total, "buckets": BUCKETS},
            )
        unknown = sorted({self.control, *self.overrides.values()} - set(names))
        if unknown:
            raise PydanticCustomError(
                "experiment_unknown_variant",
                "experiment {id}: control or overrides name unknown variants: {unknown}",
                {"id": self.id, "unknown": ", ".join(unknown)},
            )
        return self

    @model_validator(mode="after")
    def _check_traffic(self) -> Self:
        if SEPARATOR in self.salt or SEPARATOR in self.layer:
            raise PydanticCustomError(
                "experiment_salt",
                "experiment {id}: salt and layer must not hold the unit separator U+001F",
                {"id": self.id},
            )
        end = self.layer_start_bp + self.traffic_bp
        if end > BUCKETS:
            raise PydanticCustomError(
                "experiment_traffic",
                "experiment {id}: layer_start_bp + traffic_bp is {end}, must be at most {buckets}",
                {"id": self.id, "end": end, "buckets": BUCKETS},
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.status != "draft" and self.start_ms is None:
            raise PydanticCustomError(
                "experiment_start",
                "experiment {id} is {status} and needs start_ms",
                {"id": self.id, "status": self.status},
            )
        if self.status == "stopped" and self.stop_ms is None:
            raise PydanticCustomError(
                "experiment_stop", "experiment {id} is stopped and needs stop_ms", {"id": self.id}
            )
        if self.stop_ms is not None and (self.start_ms is None or self.stop_ms <= self.start_ms):
            raise PydanticCustomError(
                "experiment_schedule",
                "experiment {id}: stop_ms={stop} must be after start_ms={start}",
                {"id": self.id, "stop": self.stop_ms, "start": self.start_ms or "none"},
            )
        return self

    @model_validator(mode="after")
    def _check_guardrails(self) -> Self:
        names = (self.primary_metric, *self.guardrails)
        if len(set(names)) != len(names):
            raise PydanticCustomError(
                "experiment_guardrails",
                "experiment {id}: primary metric and guardrails must differ, got {names}",
                {"id": self.id, "names": ", ".join(names)},
            )
        return self


class Estimate(Contract):
    """Relative lift of one metric, treatment against control, with the interval that its method
    promises.

    Numbers are None where the data cannot carry them (verdict `no_data`); `low` and `high` are also
    None where the control mean is too noisy to divide by. `difference` is absolute, in the metric's
    unit.
    """

    metric: str
    control: str
    treatment: str
    lift: float | None
    low: float | None
    high: float | None
    se: float | None
    p_value: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    alpha: float = Field(gt=0, lt=0.5)
    n_control: int = Field(ge=0)
    n_treatment: int = Field(ge=0)
    method: Method
    verdict: Verdict


class MetricValue(Contract):
    """A metric in one variant; value and standard error are None before there is data."""

    metric: str
    value: float | None
    se: float | None


class VariantTotals(Contract):
    """Sums over the units of one variant, from each unit's first exposure on."""

    variant: str
    units: int = Field(ge=0)
    impressions: int
    clicks: int
    purchases: int
    value_micros: int
    metrics: tuple[MetricValue, ...]


class SrmCheck(Contract):
    """Do the unit counts fit the weights? `verdict` rests on the anytime p-value; chi-square is for
    reading.
    """

    observed: tuple[int, ...]
    expected: tuple[float, ...]
    log_e: float
    p_value: float = Field(ge=0, le=1)
    chi2_p_value: float | None = Field(ge=0, le=1)
    alpha: float = Field(gt=0, lt=0.5)
    verdict: Literal["pass", "fail", "no_data"]


class Scorecard(Contract):
    """Everything a reader needs for a decision; `flags` name what forbids or weakens it."""

    experiment_id: str
    version: int
    alpha: float = Field(gt=0, lt=0.5)
    control: str
    primary_metric: str
    variants: tuple[VariantTotals, ...]
    estimates: tuple[Estimate, ...]
    srm: SrmCheck
    flags: tuple[Flag, ...]
    units_mixed: int = Field(ge=0)
    units_overridden: int = Field(ge=0)
    labels_pending: int = Field(ge=0)
    labels_unexposed: int = Field(ge=0)
    labels_outside: int = Field(ge=0)
    labels_dropped: int = Field(ge=0)

    def estimate(self, metric: str, treatment: str) -> Estimate | None:
        """Return the comparison of `treatment` with control on `metric`, None if there is no such
        pair.
        """
        for estimate in self.estimates:
            if estimate.metric == metric and estimate.treatment == treatment:
                return estimate
        return None
