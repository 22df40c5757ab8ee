"""The monitor on records as the ranker and the features service write them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest

from rankstream.adapters.artifacts import write_artifact
from rankstream.adapters.http import install_errors
from rankstream.adapters.settings import load_settings
from rankstream.errors import InvalidSettings
from rankstream.monitoring.histogram import encode_histogram, reference_histogram
from services.monitor.app import add_routes
from services.monitor.settings import PREFIX, MonitorSettings
from tests.services.monitor.monitor_log import (
    START_MS,
    WIDTH,
    FakeEnds,
    Stream,
    a_monitor,
    in_order_of_time,
    report_of,
    verdicts,
)


async def test_a_calibrated_model_passes_and_an_overconfident_one_fails(tmp_path: Path) -> None:
    good, bad = Stream(), Stream()
    for number in range(800):
        good.slate(START_MS + 500 * number)
        bad.slate(START_MS + 500 * number, true_factor=0.5)

    calibrated = await report_of(a_monitor(tmp_path), good.served + good.labels)
    overconfident = await report_of(a_monitor(tmp_path), bad.served + bad.labels)

    assert verdicts(calibrated, "observed_expected_gap") == {"m1/control": "pass"}
    assert verdicts(calibrated, "ece_excess") == {"m1/control": "pass"}
    assert verdicts(overconfident, "observed_expected_gap") == {"m1/control": "fail"}
    assert verdicts(overconfident, "ece_excess") == {"m1/control": "fail"}
    assert calibrated.calibration[0].impressions == 4000


async def test_clicks_on_their_way_do_not_fail_a_good_model(tmp_path: Path) -> None:
    stream = Stream()
    for number in range(1200):
        delay_ms = int(stream.rng.exponential(60_000))
        stream.slate(START_MS + 200 * number, click_after_ms=delay_ms)
    seen = in_order_of_time(stream.labels, until_ms=START_MS + 200 * 1200)

    report = await report_of(a_monitor(tmp_path), stream.served + seen)

    group = report.calibration[0]
    assert group.observed_expected is not None
    assert group.mean_observed is not None
    assert group.mean_predicted is not None
    assert group.mean_observed / group.mean_predicted < 0.85
    assert abs(group.observed_expected - 1) < 0.12
    assert verdicts(report, "observed_expected_gap") == {"m1/control": "pass"}


async def test_labels_before_their_slates_and_repeated_records_change_no_number(
    tmp_path: Path,
) -> None:
    stream = Stream()
    for number in range(100):
        stream.slate(START_MS + 100 * number)

    in_order = await report_of(a_monitor(tmp_path), stream.served + stream.labels)
    monitor = a_monitor(tmp_path)
    await monitor.take(stream.labels)
    await monitor.take(stream.labels[-50:])
    shuffled = await report_of(monitor, stream.served)

    assert shuffled.calibration == in_order.calibration
    assert shuffled.skipped["labels_seen_before"] == 50


async def test_shifted_features_drift_from_the_training_histograms_of_the_manifest(
    tmp_path: Path,
) -> None:
    stream = Stream()
    sample = stream.rng.normal(0, 1, size=5000)
    names = [f"feature_{number}" for number in range(WIDTH)]
    histogram = encode_histogram(reference_histogram(sample))
    a_model(tmp_path, dict.fromkeys(names, histogram.model_dump()))
    for number in range(1000):
        stream.slate(START_MS + 100 * number, shift=1.0)

    report = await report_of(a_monitor(tmp_path), stream.served + stream.labels)

    found = verdicts(report, "psi_excess")
    assert [found[f"m1/{name}/training"] for name in names] == ["fail"] * WIDTH
    assert found["m1/pctr/first_window"] == "pass"
    assert report.models[0].reference == "training"


async def test_without_an_artifact_the_first_window_is_the_reference_and_it_is_counted(
    tmp_path: Path,
) -> None:
    stream = Stream()
    for number in range(300):
        stream.slate(START_MS + 100 * number)
    monitor = a_monitor(tmp_path)
    early = await report_of(monitor, stream.served)
    for number in range(300, 1000):
        stream.slate(START_MS + 100 * number, shift=0.0 if number < 500 else 1.0)

    later = await report_of(monitor, stream.served[300:500])
    drifted = await report_of(monitor, stream.served[500:])

    assert set(verdicts(early, "psi_excess").values()) == {"inconclusive"}
    assert set(verdicts(later, "psi_excess").values()) == {"inconclusive"}
    assert verdicts(drifted, "psi_excess")["m1/feature_0/first_window"] == "fail"
    assert drifted.skipped["model_without_artifact"] == 1
    assert drifted.models[0].reference == "first_window"


@pytest.mark.parametrize("model_id", ["..", "../../etc", "a/b"])
async def test_a_model_id_never_leads_out_of_the_artifacts(tmp_path: Path, model_id: str) -> None:
    stream = Stream()
    stream.slate(START_MS, model_id=model_id)
    monitor = a_monitor(tmp_path)

    await monitor.take(stream.served)

    assert monitor.fold.skipped["model_without_artifact"] == 1


async def test_degraded_answers_are_counted_by_reason_and_fail_the_check(tmp_path: Path) -> None:
    stream = Stream()
    registry = CollectorRegistry()
    for number in range(400):
        stream.slate(START_MS + number, degraded=["retrieval_timeout"] if number % 10 == 0 else [])

    report = await report_of(a_monitor(tmp_path, registry=registry), stream.served)

    assert verdicts(report, "degraded_share") == {"": "fail"}
    text = generate_latest(registry).decode()
    assert 'rankstream_monitor_degraded_slates_total{reason="retrieval_timeout"} 40.0' in text
    assert "rankstream_monitor_degraded_ratio 0.1" in text


async def test_delays_are_measured_and_no_data_is_inconclusive(tmp_path: Path) -> None:
    stream = Stream()
    monitor = a_monitor(tmp_path)
    empty = await report_of(monitor, [])
    for number in range(400):
        stream.slate(START_MS + number)

    report = await report_of(monitor, stream.served + stream.labels)

    assert verdicts(empty, "delay_ms_p99") == {"served": "inconclusive", "label": "inconclusive"}
    assert verdicts(report, "delay_ms_p99") == {"served": "pass", "label": "pass"}
    served = next(entry for entry in report.checks if entry.subject == {"stage": "served"})
    assert served.value == pytest.approx(20, rel=0.03)


async def test_lag_is_reported_and_brokers_that_do_not_answer_are_an_error(tmp_path: Path) -> None:
    known = a_monitor(tmp_path, ends=FakeEnds({("features", "events", 0): 99_999}))
    silent = a_monitor(tmp_path, ends=FakeEnds(None))

    await known.read_lag()
    await silent.read_lag()

    assert verdicts(await report_of(known, []), "group_lag_records") == {
        "features": "fail",
        "ingest-json": "inconclusive",
    }
    assert verdicts(await report_of(silent, []), "group_lag_records") == {
        "features": "error",
        "ingest-json": "error",
    }


async def test_old_traffic_leaves_the_windows_and_the_memory(tmp_path: Path) -> None:
    stream = Stream()
    for number in range(300):
        stream.slate(START_MS + number)
    stream.slate(START_MS + 3 * 3_600_000)
    monitor = a_monitor(tmp_path)

    await monitor.take(stream.served[:300] + stream.labels[:600])
    report = await report_of(monitor, stream.served[300:])

    assert monitor.fold.join.slates == 1
    assert report.calibration == ()
    assert report.as_of_ms == START_MS + 3 * 3_600_000 + 20


async def test_models_beyond_the_limit_push_the_least_recently_served_out(tmp_path: Path) -> None:
    stream = Stream()
    monitor = a_monitor(tmp_path)
    for number in range(20):
        stream.slate(START_MS + number, model_id=f"m{number}")
        await monitor.take(stream.served[-1:])

    assert len(monitor.fold.models) == 16
    assert "m0" not in monitor.fold.models
    assert "m19" in monitor.fold.models
    assert monitor.fold.skipped["model_over_limit"] == 4


async def test_the_report_is_served_over_http_once_the_log_was_read(tmp_path: Path) -> None:
    monitor = a_monitor(tmp_path)
    app = FastAPI()
    install_errors(app)
    add_routes(app, monitor)
    transport = httpx.ASGITransport(app=app)

    async with httpx.AsyncClient(transport=transport, base_url="http://monitor") as client:
        before = await client.get("/v1/report")
        monitor.measure()
        after = await client.get("/v1/report")

    assert before.status_code == 503
    assert before.json()["error"]["code"] == "not_ready"
    assert after.status_code == 200
    assert after.json()["verdicts"]["fail"] == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MONITOR_GROUPS", "a,,b"), ("MONITOR_PSI_MAX", "-1"), ("MONITOR_WINDOW", "5")],
)
def test_wrong_settings_are_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=variable):
        load_settings(MonitorSettings, PREFIX, {variable: value})


def a_model(root: Path, histograms: dict[str, object]) -> None:
    fields = {
        "model_id": "m1",
        "role": "ranker",
        "family": "logistic_regression",
        "created_ms": 1,
        "data_version": "test",
        "train_from_ms": 0,
        "train_until_ms": 1,
        "parity_max_abs": 0.0,
        "feature_histograms": histograms,
    }
    write_artifact(root / "ranker" / "m1", fields, {"model.onnx": b"x"})
