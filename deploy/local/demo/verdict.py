"""What a demo run measured: checks that it must pass, figures to keep, the page to print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table

from deploy.local.demo.machine import Cores
from deploy.local.demo.traffic import Tally
from rankstream.contracts.experiment import Estimate, Scorecard
from rankstream.simulation.lift import TrueLift

REQUESTS_PER_S_MIN: Final = 50.0
LATENCY_MS_P99_MAX: Final = 100.0
RSS_GB_MAX: Final = 4.0
# Checks that a busy machine can fail with nothing wrong.
PERFORMANCE: Final = (
    f"at least {REQUESTS_PER_S_MIN:g} recommendations/s",
    f"p99 of at most {LATENCY_MS_P99_MAX:g} ms",
    f"at most {RSS_GB_MAX:g} GB resident",
)


@dataclass(frozen=True)
class Conservation:
    """Where every event went. All from durable counts, history included."""

    produced: int  # history and traffic, repeats and broken ones included
    folded: int
    duplicates: int
    dead: int  # refused at the edge or in the stream
    late: int  # in the lake, too late for features

    @property
    def lost(self) -> int:
        return self.produced - self.folded - self.duplicates - self.dead - self.late


@dataclass(frozen=True)
class Skew:
    """Served features against their recomputation from the log."""

    slates: int
    items: int
    skewed_features: int
    unverifiable: int  # slates whose records the log no longer has


@dataclass(frozen=True)
class Measured:
    """Everything that one run found out."""

    unhealthy: tuple[str, ...]
    scorecard: Scorecard  # at the usual level
    strict: Scorecard  # at 99 %, for the check
    truth: TrueLift
    tally: Tally
    events: Conservation
    skew: Skew
    freshness_ms: Mapping[str, float]  # p50, p99
    models: Mapping[str, Mapping[str, float]]  # name -> metric -> value
    rss_gb: float
    cores: Cores  # while people asked
    started_s: float  # command to first live request
    total_s: float  # command to result
    first: bool  # something had to be downloaded
    seed: int

    def latency_ms(self, quantile: float) -> float:
        return float(np.quantile(self.tally.latency_s, quantile)) * 1000.0

    @property
    def requests_per_s(self) -> float:
        return len(self.tally.latency_s) / self.tally.seconds


@dataclass(frozen=True)
class Check:
    """One condition of a good run."""

    name: str
    passed: bool
    detail: str


def primary(scorecard: Scorecard) -> Estimate:
    """The one comparison that the experiment is about."""
    (estimate,) = (e for e in scorecard.estimates if e.metric == scorecard.primary_metric)
    return estimate


def checks(run: Measured) -> list[Check]:
    """What must hold for the demo to end with 0."""
    estimate, lift = primary(run.strict), run.truth.lift
    low, high = estimate.low, estimate.high
    covered = low is not None and high is not None and low <= lift <= high
    events, skew, srm = run.events, run.skew, run.scorecard.srm
    failed = sum(run.tally.failed.values())
    why = "".join(f", {n} {code}" for code, n in sorted(run.tally.failed.items()))
    asked = len(run.tally.latency_s) + failed
    return [
        Check("every service was healthy", not run.unhealthy, ", ".join(run.unhealthy) or "all 8"),
        Check(
            "no event was lost",
            events.lost == 0,
            f"{events.produced:,} = {events.folded:,} folded + {events.dead:,} dead"
            f" + {events.duplicates:,} duplicates + {events.late:,} late",
        ),
        Check(
            "the 99 % interval contains the true lift",
            covered,
            f"{percent(lift)} in {interval(estimate)}",
        ),
        Check("sample ratio fits the weights", srm.verdict == "pass", f"p = {srm.p_value:.3f}"),
        Check(
            "served features equal their recomputation",
            skew.skewed_features == 0 and skew.slates > 0 and skew.unverifiable == 0,
            f"{skew.skewed_features} features differ in {skew.items:,} vectors"
            f" of {skew.slates:,} slates",
        ),
        Check("no request failed", failed == 0, f"{failed} of {asked:,}{why}"),
        Check(
            PERFORMANCE[0],
            run.requests_per_s >= REQUESTS_PER_S_MIN,
            f"{run.requests_per_s:.1f}",
        ),
        Check(
            PERFORMANCE[1],
            run.latency_ms(0.99) <= LATENCY_MS_P99_MAX,
            f"{run.latency_ms(0.99):.1f} ms",
        ),
        Check(PERFORMANCE[2], run.rss_gb <= RSS_GB_MAX, f"{run.rss_gb:.2f} GB"),
    ]


def figures(run: Measured, *, command: str, commit: str) -> list[dict[str, Any]]:
    """The rows of bench/out/demo.json."""
    estimate = primary(run.strict)
    name = "demo.first_s" if run.first else "demo.second_s"
    values: list[tuple[str, float | None, str]] = [
        (name, run.total_s if run.first else run.started_s, "s"),
        ("demo.result_s", run.total_s, "s"),
        ("demo.freshness_ms_p50", run.freshness_ms["p50"], "ms"),
        ("demo.freshness_ms_p99", run.freshness_ms["p99"], "ms"),
        ("demo.recommend_per_s", run.requests_per_s, "1/s"),
        ("demo.recommend_ms_p50", run.latency_ms(0.5), "ms"),
        ("demo.recommend_ms_p99", run.latency_ms(0.99), "ms"),
        ("demo.rss_gb", run.rss_gb, "GB"),
        ("demo.cpu_cores", run.cores.system, "cores"),
        ("demo.cpu_cores_others", run.cores.others, "cores"),
        ("demo.cpu_cores_stolen", run.cores.stolen, "cores"),
        ("demo.true_lift", run.truth.lift, "ratio"),
        ("demo.estimate", estimate.lift, "ratio"),
        ("demo.low", estimate.low, "ratio"),
        ("demo.high", estimate.high, "ratio"),
        ("demo.lost_events", run.events.lost, "events"),
        ("demo.skewed_features", run.skew.skewed_features, "features"),
    ]
    spread = {"demo.true_lift": run.truth.standard_error, "demo.estimate": estimate.se}
    return [
        {
            "id": key,
            "value": value,
            "unit": unit,
            "spread": spread.get(key),
            "against": None,
            "ratio": None,
            "command": command,
            "commit": commit,
        }
        for key, value, unit in values
    ]


def percent(share: float | None) -> str:
    """A relative lift as people read it."""
    return "?" if share is None else f"{100 * share:+.1f} %"


def interval(estimate: Estimate) -> str:
    """An interval as people read it."""
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


_VERDICTS: Final = {
    "better": "[bold green]better: ship it",
    "worse": "[bold red]worse: keep the champion",
    "no_difference_yet": "[bold yellow]no difference shown yet",
    "no_data": "[bold yellow]not enough data",
    "srm_mismatch": "[bold red]sample ratio mismatch: do not read the numbers",
}


# Of what the pipeline measures, what fits a line.
_EVIDENCE: Final = (
    ("auc", "AUC"),
    ("log_loss", "log loss"),
    ("ece", "ECE"),
    ("recall_at_500", "recall@500"),
)


def _experiment(run: Measured) -> Table:
    table = Table(title="Experiment: champion (logistic regression) against challenger (XGBoost)")
    for column in ("variant", "users", "impressions", "clicks", "CTR", "purchases", "CVR"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant in run.scorecard.variants:
        values = {metric.metric: metric.value for metric in variant.metrics}
        table.add_row(
            variant.variant,
            f"{variant.units:,}",
            f"{variant.impressions:,}",
            f"{variant.clicks:,}",
            f"{100 * (values['ctr'] or 0):.2f} %",
            f"{variant.purchases:,}",
            f"{100 * (values['cvr'] or 0):.2f} %",
        )
    return table


def _lift(run: Measured) -> Table:
    found, strict = primary(run.scorecard), primary(run.strict)
    table = Table(title="Lift in CTR, and what the simulator knows", show_header=False)
    table.add_row("estimate", f"[bold]{percent(found.lift)}")
    table.add_row("95 %, valid at any look", interval(found))
    table.add_row("99 %, valid at any look", interval(strict))
    table.add_row(
        "true lift",
        f"[bold]{percent(run.truth.lift)}[/] ± {100 * run.truth.standard_error:.1f} %"
        f"  (CTR {100 * run.truth.control:.2f} % → {100 * run.truth.treatment:.2f} %)",
    )
    srm = run.scorecard.srm
    table.add_row("sample ratio", f"{srm.verdict} (p = {srm.p_value:.3f} at any look)")
    table.add_row("verdict", _VERDICTS[found.verdict])
    return table


def _system(run: Measured) -> Table:
    table = Table(title="The system meanwhile", show_header=False)
    table.add_row(
        "recommendations",
        f"{run.requests_per_s:.1f}/s, p50 {run.latency_ms(0.5):.1f} ms,"
        f" p95 {run.latency_ms(0.95):.1f} ms, p99 {run.latency_ms(0.99):.1f} ms",
    )
    table.add_row(
        "event → feature",
        f"p50 {run.freshness_ms['p50']:.0f} ms, p99 {run.freshness_ms['p99']:.0f} ms",
    )
    events = run.events
    table.add_row(
        "events",
        f"{events.folded:,} folded, {events.duplicates:,} duplicates dropped,"
        f" {events.dead:,} dead letters, {events.late:,} late, {events.lost:,} lost",
    )
    for name, metrics in run.models.items():
        shown = (f"{what} {metrics[key]:.3f}" for key, what in _EVIDENCE if key in metrics)
        table.add_row(name, ", ".join(shown))
    degraded = ", ".join(f"{n} {reason}" for reason, n in sorted(run.tally.degraded.items()))
    table.add_row("degraded answers", degraded or "none")
    cores = run.cores
    table.add_row(
        "used",
        f"{run.rss_gb:.2f} GB resident, {cores.system:.2f} of {cores.all} cores; users and others"
        f" {cores.others:.2f}, taken by the host {cores.stolen:.2f}",
    )
    table.add_row("time", f"live after {run.started_s:.0f} s, result after {run.total_s:.0f} s")
    table.add_row("again", f"make demo ARGS='--seed {run.seed}'")
    return table


def _checks(run: Measured) -> Table:
    table = Table(title="Checks", show_header=False)
    for check in checks(run):
        mark = "[green]✓[/]" if check.passed else "[bold red]✗[/]"
        table.add_row(mark, check.name, check.detail)
    return table


def _where(where: Mapping[str, str]) -> Table:
    table = Table(title="Where to look next", show_header=False)
    for what, address in where.items():
        table.add_row(what, address)
    return table


def render(console: Console, run: Measured, *, where: Mapping[str, str]) -> None:
    """Print the result; `where` names pages to look at next."""

    def parts() -> Iterator[RenderableType]:
        yield _experiment(run)
        yield _lift(run)
        yield _system(run)
        yield _checks(run)
        yield _where(where)

    console.print(Group(*parts()))
