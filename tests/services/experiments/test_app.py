"""The experiments service as a process, on the real Kafka."""

from __future__ import annotations

import json
import signal
import time

import pytest

from rankstream import topics
from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.experiments.scorecard import Delta, UnitTable
from tests.services.experiments.experiments_process import (
    HOUR_MS,
    SHUTDOWN_S,
    STRANGER,
    USERS,
    WAIT_S,
    Service,
    a_definition,
    clicks_of,
    page,
    state,
)


def totals(scorecard: Scorecard) -> dict[str, tuple[int, int, int]]:
    return {v.variant: (v.units, v.impressions, v.clicks) for v in scorecard.variants}


def counted(variants: dict[str, str], clicks: dict[str, int]) -> dict[str, tuple[int, int, int]]:
    """Units, impressions and clicks by variant, the slow and obvious way."""
    return {
        name: (
            sum(variant == name for variant in variants.values()),
            sum(variants.get(user) == name for user in clicks),
            sum(click for user, click in clicks.items() if variants.get(user) == name),
        )
        for name in ("control", "treatment")
    }


def units(scorecard: Scorecard) -> int:
    return sum(variant.units for variant in scorecard.variants)


@pytest.mark.integration
def test_a_scorecard_is_what_the_log_says_and_a_restart_changes_no_byte(service: Service) -> None:
    service.define()
    running = service.change("start")
    start_ms = running.start_ms or 0
    exposed = service.expose(running, start_ms + 1)
    service.until(lambda: units(service.scorecard()) == len(exposed), "exposures")
    clicks = clicks_of([*USERS, STRANGER])
    # The watermark is past what may wait: read without its exposure at hand, a label is lost.
    service.label(start_ms + 5, clicks, watermark_ms=start_ms + 2 * HOUR_MS)
    service.until(lambda: totals(service.scorecard()) == counted(exposed, clicks), "labels")
    fields = running.model_dump(mode="json") | {"version": 3, "traffic_bp": 10_000}
    ramped = service.expose(service.define(**fields), start_ms + 10)
    service.until(lambda: units(service.scorecard()) == len(ramped), "ramped exposures")
    service.change("stop")
    before = state(service)

    service.stop(signal.SIGKILL)
    service.start()

    assert state(service) == before
    assert len(exposed) < len(ramped) == len(USERS)
    assert exposed.items() <= ramped.items()
    stopped = Experiment.model_validate_json(before[1])
    assert (stopped.status, stopped.version) == ("stopped", 4)
    assert Scorecard.model_validate_json(before[2]) == expected(stopped, exposed, ramped, clicks)


def expected(
    experiment: Experiment, exposed: dict[str, str], ramped: dict[str, str], clicks: dict[str, int]
) -> Scorecard:
    """The scorecard of the test above, folded in this process in another order."""
    assert experiment.start_ms is not None
    table = UnitTable(experiment)
    for user, click in clicks.items():
        table.add(user, experiment.start_ms + 5, Delta(impressions=1, clicks=click))
    for unit, variant in ramped.items():
        table.expose(unit, variant, experiment.start_ms + 10)
    for unit, variant in exposed.items():
        table.expose(unit, variant, experiment.start_ms + 1)
    table.expire(experiment.start_ms + HOUR_MS)
    return table.scorecard(alpha=0.05)


@pytest.mark.integration
def test_labels_from_before_the_start_are_the_same_after_a_restart(service: Service) -> None:
    service.define()
    service.label(1_700_000_000_000, clicks_of(USERS), watermark_ms=1_700_000_000_000)
    service.until(lambda: label_lag(service) == 0, "labels to be read")
    service.change("start")
    before = state(service)

    service.stop(signal.SIGKILL)
    service.start()

    assert state(service) == before


def label_lag(service: Service) -> float:
    """Records of `labels` behind the end; 1 before the first has been heard of."""
    page = service.http.get("/metrics").text
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith("rankstream_consumer_lag_records{partition=")
        and 'topic="labels"' in line
    ]
    return sum(found) if found else 1.0


@pytest.mark.integration
def test_a_definition_from_the_log_is_in_force_within_a_second(service: Service) -> None:
    written = Experiment.model_validate_json(json.dumps(a_definition()))

    service.producer.produce(topics.EXPERIMENTS.name, encode_experiment(written), written.id)
    assert service.producer.flush(WAIT_S) == 0

    service.until(
        lambda: service.http.get("/v1/experiments/rankers").is_success, "definition", within_s=1
    )


@pytest.mark.integration
def test_health_and_metrics_are_there_and_sigterm_ends_it_in_time(service: Service) -> None:
    service.define()
    running = service.change("start")
    exposed = service.expose(running, (running.start_ms or 0) + 1)
    treated = sum(variant == "treatment" for variant in exposed.values())
    service.label((running.start_ms or 0) + 5, dict.fromkeys(USERS, 1), watermark_ms=1)

    service.until(
        lambda: all(
            line in page(service)
            for line in (
                f'_units{{experiment="rankers",variant="treatment"}} {float(treated)}',
                '_metric{experiment="rankers",metric="ctr",variant="control"} 1.0',
                '_srm_p_value{experiment="rankers"}',
                'rankstream_consumer_lag_records{partition="0",topic="exposures"} 0.0',
                "rankstream_process_cpu_seconds_total",
            )
        ),
        "metrics",
    )
    assert service.http.get("/healthz").text == "ok\n"
    began = time.monotonic()
    assert service.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < SHUTDOWN_S
