"""The whole loop, step by step: history, models, live users, and what came of it.

MovieLens 100K becomes events that end now; they are folded into features and written to the lake;
models are trained on them and registered; simulated users then ask for slates, half of them from
the champion, half from the challenger, and the scorecard is read off the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
import httpx
import numpy as np

from deploy.local.demo.jobs import run_job
from deploy.local.demo.machine import CpuSeen, cores_used, cpu_seen
from deploy.local.demo.observed import counts, freshness_ms, freshness_seen
from deploy.local.demo.traffic import Plan, Tally, Traffic
from deploy.local.demo.verdict import Conservation, Measured, Skew
from deploy.local.errors import LocalError
from deploy.local.report import Report
from deploy.local.services import SERVICES
from deploy.local.system import System
from deploy.local.tools import Tools
from pipelines.datasets.movielens import LIKED, read_ratings
from rankstream.contracts.experiment import Experiment, Scorecard, Variant
from rankstream.pb.ranker_pb2 import RankReply, RecommendRequest
from rankstream.simulation.lift import true_lift
from rankstream.simulation.truth import Truth, fit_truth

EXPERIMENT: Final = "champion-vs-challenger"
CONTROL: Final = "champion"
TREATMENT: Final = "challenger"
# People decide within seconds here and not within a day, so that the demo can wait for every label.
FEATURES_ENVIRON: Final = {
    "FEATURES_CLICK_WINDOW_MS": "10000",
    "FEATURES_CONVERSION_WINDOW_MS": "20000",
    "FEATURES_LATENESS_MS": "3000",
    "FEATURES_LAKE_FLUSH_S": "5",
}
HISTORY_TIMEOUT_S: Final = 180.0
MODELS_TIMEOUT_S: Final = 60.0
SETTLE_TIMEOUT_S: Final = 90.0
REQUEST_TIMEOUT_S: Final = 5.0
SAMPLE_EVERY_S: Final = 5.0
POLL_S: Final = 0.5
SKEW_SLATES: Final = 1_000


@dataclass(frozen=True)
class Options:
    """What `make demo ARGS=...` takes."""

    exit: bool
    seconds: float
    rate: float
    seed: int


class Loop:
    """One run, step by step; each step leaves what the next one needs."""

    def __init__(
        self,
        system: System,
        options: Options,
        report: Report,
        *,
        started_at_s: float,
        first: bool,
    ) -> None:
        self._system = system
        self._options = options
        self._report = report
        self._started_at_s = started_at_s
        self._first = first
        self._rss: list[int] = []

    def measure(self) -> Measured:
        system, report = self._system, self._report
        tools = system.provision(report)
        system.start_servers(tools, report)
        system.start_services(SERVICES, report)
        with ThreadPoolExecutor(1) as beside:
            feast = beside.submit(self._apply_feast)
            history = self._history(tools)
            models = self._train(history)
            feast.result()
        system.await_ready(SERVICES, report, MODELS_TIMEOUT_S)
        truth = self._truth(tools)
        self._define_experiment()
        started_s = time.time() - self._started_at_s
        before, cpu_before = freshness_seen(self._features), self._cpu_seen()
        tally = asyncio.run(self._live(truth))
        cores = cores_used(cpu_before, self._cpu_seen())
        freshness = freshness_ms(before, freshness_seen(self._features))
        self._settle(tally)
        skew = self._skew()
        unhealthy = tuple(s.name for s in system.status() if not s.healthy)
        return Measured(
            unhealthy=unhealthy,
            scorecard=self._scorecard(0.05),
            strict=self._scorecard(0.01),
            truth=true_lift(
                np.array(tally.preview_control),
                np.array(tally.preview_treatment),
                tally.preview_user,
            ),
            tally=tally,
            events=self._conservation(int(history["events"]), tally),
            skew=skew,
            freshness_ms=freshness,
            models=models["metrics"],
            rss_gb=max(self._rss) / 1e9,
            cores=cores,
            started_s=started_s,
            total_s=time.time() - self._started_at_s,
            first=self._first,
            seed=self._options.seed,
        )

    @property
    def _features(self) -> str:
        return f"http://127.0.0.1:{self._system.ports.features}"

    @property
    def _experiments(self) -> str:
        return f"http://127.0.0.1:{self._system.ports.experiments_admin}/v1/experiments"

    def _cpu_seen(self) -> CpuSeen:
        return cpu_seen(self._system.usage().cpu_s)

    def _job(self, module: str, *arguments: str) -> Any:
        return run_job(
            module,
            *arguments,
            root=self._system.root,
            environ=FEATURES_ENVIRON,
            report=self._report,
        )

    def _history(self, tools: Tools) -> Mapping[str, Any]:
        """MovieLens into Kafka, then wait until every event is folded and in the lake."""
        self._system.await_ready(("features",), self._report, MODELS_TIMEOUT_S)
        produced: Mapping[str, Any] = self._job(
            "pipelines.datasets",
            "produce",
            "--path",
            str(tools.ml_100k),
            "--until-ms",
            str(time.time_ns() // 1_000_000),
            "--bootstrap",
            self._system.kafka_url,
        )
        total = int(produced["events"])
        deadline = time.monotonic() + HISTORY_TIMEOUT_S
        while True:
            seen = counts(self._features)
            self._report.step("history folded", min(seen.events, total), total)
            if seen.events >= total and seen.lake_events >= total and seen.updates_lag == 0:
                return produced
            if time.monotonic() > deadline:
                raise LocalError(
                    f"only {seen.events} of {total} events of the history folded and"
                    f" {seen.lake_events} in the lake after {HISTORY_TIMEOUT_S:g} s."
                    " Still running. See make logs."
                )
            time.sleep(POLL_S)

    def _apply_feast(self) -> None:
        """Feast's registry, so that its own API reads the rows that the stream writes."""
        self._job(
            "pipelines.features",
            "apply",
            "--redis-url",
            self._system.redis_url,
            "--registry",
            str(self._system.state / "feast" / "registry.db"),
            "--offline",
            str(self._system.state / "lake" / "feature_rows"),
        )

    def _train(self, history: Mapping[str, Any]) -> Any:
        state = self._system.state
        return self._job(
            "pipelines",
            "run",
            "--lake",
            str(state / "lake"),
            "--artifacts",
            str(state / "artifacts"),
            "--registry",
            f"sqlite:///{state / 'registry.db'}",
            "--bootstrap",
            self._system.kafka_url,
            "--until-ms",
            str(history["until_ms"]),
        )

    def _truth(self, tools: Tools) -> Truth:
        ratings = read_ratings(tools.ml_100k)
        return fit_truth(
            [viewer.user_id for viewer in ratings.viewers],
            [film.item_id for film in ratings.films],
            ratings.user,
            ratings.item,
            ratings.value >= LIKED,
            seed=self._options.seed,
        )

    def _define_experiment(self) -> None:
        experiment = Experiment(
            id=EXPERIMENT,
            salt=f"{EXPERIMENT}-{self._options.seed}",
            layer="ranking",
            variants=(
                Variant(name=CONTROL, weight_bp=5_000, model=CONTROL),
                Variant(name=TREATMENT, weight_bp=5_000, model=TREATMENT),
            ),
            traffic_bp=10_000,
            control=CONTROL,
            primary_metric="ctr",
            planned_lift=0.1,
        )
        with httpx.Client(timeout=10.0) as client:
            client.post(self._experiments, content=experiment.model_dump_json()).raise_for_status()
            client.post(f"{self._experiments}/{EXPERIMENT}:start").raise_for_status()

    async def _live(self, truth: Truth) -> Tally:
        """Traffic, with the memory of all processes sampled beside it."""
        ports, options = self._system.ports, self._options
        plan = Plan(EXPERIMENT, CONTROL, TREATMENT, options.seed, options.seconds, options.rate)
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{ports.ranker_grpc}") as channel,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.ingest}", timeout=30.0) as ingest,
        ):
            call = channel.unary_unary(
                "/rankstream.v1.Ranker/Recommend",
                request_serializer=RecommendRequest.SerializeToString,
                response_deserializer=RankReply.FromString,
            )
            traffic = Traffic(
                plan,
                truth,
                recommend=lambda request: call(request, timeout=REQUEST_TIMEOUT_S),
                ingest=ingest,
            )
            sampler = asyncio.create_task(self._sample_memory())
            total = round(options.seconds)
            tally = await traffic.run(
                lambda seconds: self._report.step("live users", min(round(seconds), total), total)
            )
            self._report.step("live users", total, total)
            sampler.cancel()
            return tally

    async def _sample_memory(self) -> None:
        while True:
            usage = await asyncio.to_thread(self._system.usage)
            self._rss.append(usage.rss_bytes)
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _settle(self, tally: Tally) -> None:
        """Wait until each label of the traffic is final and counted."""
        shown = tally.sent["impression"] - tally.repeated["impression"]
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            seen = counts(self._features)
            counted = sum(v.impressions for v in self._scorecard(0.05).variants)
            final = max(0, min(counted, shown) - seen.open_labels)
            self._report.step("labels final", final, shown)
            if counted >= shown and seen.open_labels == 0:
                return
            if time.monotonic() > deadline:
                self._report.say(
                    f"labels not final after {SETTLE_TIMEOUT_S:g} s: {counted} of {shown} counted,"
                    f" {seen.open_labels} open"
                )
                return
            time.sleep(POLL_S)

    def _skew(self) -> Skew:
        found = self._job(
            "pipelines.features.skew",
            "--bootstrap",
            self._system.kafka_url,
            "--sample",
            str(SKEW_SLATES),
            "--artifacts",
            str(self._system.state / "artifacts"),
        )
        unverifiable = found["unverifiable"] + found["tableless"]
        return Skew(found["slates"], found["items"], found["skewed_features"], unverifiable)

    def _scorecard(self, alpha: float) -> Scorecard:
        answer = httpx.get(
            f"{self._experiments}/{EXPERIMENT}/scorecard", params={"alpha": alpha}, timeout=10.0
        )
        return Scorecard.model_validate_json(answer.raise_for_status().content)

    def _conservation(self, history: int, tally: Tally) -> Conservation:
        seen = counts(self._features)
        return Conservation(
            produced=history + tally.accepted + tally.rejected,
            folded=seen.folded,
            duplicates=seen.duplicates,
            dead=seen.refused + tally.rejected,
            late=seen.late,
        )
