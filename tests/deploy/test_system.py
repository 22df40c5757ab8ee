"""The supervisor: one checkout's servers and services, up, down and watched."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console

from deploy.local.__main__ import show_status
from deploy.local.errors import Busy, LocalError, StartFailed
from deploy.local.report import Silent
from deploy.local.services import SERVICES, Ports, service_environ
from deploy.local.system import SERVERS, System
from deploy.local.tools import Tools
from rankstream import topics

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0
# Answers like a service: 503 with a reason while the file `wait` is there.
STAND_IN = """
import http.server, json, os, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        waits = pathlib.Path("wait-{name}").exists()
        self.send_response(503 if waits else 200)
        self.end_headers()
        reasons = {{"model": "none yet"}} if waits else {{}}
        self.wfile.write(json.dumps({{"ready": not waits, "reasons": reasons}}).encode())

    def log_message(self, *_):
        pass

if pathlib.Path("broken-{name}").exists():
    sys.exit("settings are wrong")
port = int(os.environ.get("{prefix}_ADMIN_PORT", os.environ["{prefix}_PORT"]))
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with six services that answer like ours."""
    for name in SERVICES:
        folder = tmp_path / "services" / name
        folder.mkdir(parents=True)
        code = STAND_IN.format(name=name, prefix=name.upper())
        (folder / "__main__.py").write_text(code)
    return tmp_path


@pytest.fixture
def system(checkout: Path) -> Iterator[System]:
    own = System(checkout, Ports.free())
    yield own
    own.down(Silent())


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(system: System) -> dict[str, str]:
    return {status.name: status.state for status in system.status()}


def test_a_service_that_was_killed_is_seen_and_started_again(system: System) -> None:
    system.start_services(SERVICES, Silent())
    before = system.processes.running()

    psutil.Process(before["ranker"].pid).kill()
    eventually(lambda: states(system)["ranker"] == "ended")
    seen = states(system)
    system.start_services(SERVICES, Silent())
    after = system.processes.running()

    assert {name for name, state in seen.items() if state == "running"} == {*SERVICES} - {"ranker"}
    assert after.keys() == before.keys()
    assert {name for name in SERVICES if after[name] != before[name]} == {"ranker"}


def test_down_leaves_nothing_running_and_no_record(system: System) -> None:
    system.start_services(SERVICES, Silent())
    pids = [record.pid for record in system.processes.running().values()]

    system.down(Silent())

    assert len(pids) == len(SERVICES)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert set(states(system).values()) == {"not started"}


def test_down_finds_the_system_wherever_its_ports_are(system: System) -> None:
    system.start_services(["ingest"], Silent())

    later = System.from_environ(system.root, {"RANKSTREAM_PORT_BASE": "20000"})
    later.down(Silent())

    assert later.ports == system.ports
    assert system.processes.running() == {}


def test_a_service_that_dies_at_the_start_shows_why(system: System) -> None:
    (system.root / "broken-ranker").touch()

    with pytest.raises(StartFailed, match=r"ranker .* ended before it was ready") as caught:
        system.start_services(SERVICES, Silent())

    assert "settings are wrong" in str(caught.value)


def test_a_variable_given_for_one_service_reaches_it_alone(checkout: Path) -> None:
    system = System(checkout, Ports.free(), environ={"features": {"FEATURES_LATENESS_MS": "7"}})

    try:
        system.start_services(SERVICES, Silent())
        seen = {
            name: psutil.Process(record.pid).environ().get("FEATURES_LATENESS_MS")
            for name, record in system.processes.running().items()
        }
    finally:
        system.down(Silent())

    assert seen == {**dict.fromkeys(SERVICES), "features": "7"}


def test_waiting_for_ready_ends_with_each_reason(system: System) -> None:
    (system.root / "wait-ranker").touch()
    system.start_services(SERVICES, Silent())

    with pytest.raises(StartFailed, match=r"not ready after 0\.2 s: ranker: model: none yet\."):
        system.await_ready(SERVICES, Silent(), 0.2)

    (system.root / "wait-ranker").unlink()
    system.await_ready(SERVICES, Silent(), WAIT_S)


def test_waiting_for_ready_ends_when_a_service_dies(system: System) -> None:
    (system.root / "wait-ranker").touch()
    system.start_services(SERVICES, Silent())

    psutil.Process(system.processes.running()["ranker"].pid).kill()

    with pytest.raises(StartFailed, match=r"ranker .* ended before it was ready"):
        system.await_ready(SERVICES, Silent(), WAIT_S)


def test_status_fails_and_names_what_is_unhealthy(system: System) -> None:
    (system.root / "wait-ranker").touch()
    system.start_services(SERVICES, Silent())
    text = io.StringIO()

    code = show_status(system, Console(file=text, width=200))

    lines = {line.split()[0]: line for line in text.getvalue().splitlines()}
    assert code == 1
    assert "model: none yet" in lines["ranker"]
    assert " ok " in lines["monitor"]
    assert "not started" in lines["kafka"]


def test_two_commands_do_not_work_at_once(system: System) -> None:
    second = System(system.root, system.ports)

    with system.exclusively(), pytest.raises(Busy, match="another up or down is at work"):
        second.down(Silent())


@pytest.mark.parametrize("base", ["80", "65535", "many", "-1"])
def test_a_wrong_port_base_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(LocalError, match="allowed: 1024 to 65000, or random"):
        System.from_environ(tmp_path, {"RANKSTREAM_PORT_BASE": base})


def test_no_two_listeners_share_a_port() -> None:
    for ports in (Ports(), Ports.at(20_000), Ports.free()):
        numbers = list(vars(ports).values())
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_accepts_the_variables_it_is_started_with(name: str, tmp_path: Path) -> None:
    environ = {**os.environ, **service_environ(name, Ports.at(20_000), tmp_path)}

    ran = subprocess.run(
        [sys.executable, "-m", f"services.{name}", "--check-config"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr


@pytest.mark.integration
def test_up_and_down_with_real_servers_keep_the_data(system: System, tools: Tools) -> None:
    system.start_servers(tools, Silent())
    system.start_services(SERVICES, Silent())
    system.await_ready(SERVICES, Silent(), WAIT_S)
    with redis.Redis.from_url(system.redis_url) as client:
        client.set("kept", "yes")
    healthy = [status.name for status in system.status() if status.healthy]
    used = system.usage()
    system.down(Silent())
    stopped = states(system)
    system.start_servers(tools, Silent())
    with redis.Redis.from_url(system.redis_url) as client:
        kept = client.get("kept")

    assert healthy == [*SERVERS, *SERVICES]
    assert 0 < used.rss_bytes < 4e9
    assert used.cpu_s > 0
    assert set(stopped.values()) == {"not started"}
    assert kept == b"yes"


@pytest.mark.slow
@pytest.mark.integration
def test_a_killed_broker_comes_back_with_its_records(system: System, tools: Tools) -> None:
    system.start_servers(tools, Silent())
    producer = Producer({"bootstrap.servers": system.kafka_url, "acks": "all"})
    producer.produce(topics.MODELS.name, key=b"k", value=b"v")
    assert producer.flush(10) == 0
    killed = system.processes.running()

    psutil.Process(killed["kafka"].pid).kill()
    eventually(lambda: states(system)["kafka"] == "ended")
    system.start_servers(tools, Silent())
    consumer = Consumer({"bootstrap.servers": system.kafka_url, "group.id": "test"})
    consumer.assign([TopicPartition(topics.MODELS.name, 0, 0)])
    record = consumer.poll(20)
    consumer.close()

    assert system.processes.running()["redis"] == killed["redis"]
    assert record is not None
    assert record.value() == b"v"
