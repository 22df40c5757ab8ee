"""Processes are started, found again, and stopped with all that they started."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.local.errors import PortTaken, StartFailed
from deploy.local.processes import NOT_INHERITED, Processes, Record, Spec, start_mark

WAIT_S = 10.0
SLEEPER = "import time; time.sleep(600)"
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ready}; time.sleep(600)"
)
PARENT = (
    "import pathlib, subprocess, sys, time;"
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]{{options}});"
    "pathlib.Path('child').write_text(str(child.pid));"
    "time.sleep(600)"
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    own = Processes(tmp_path / "state")
    yield own
    for record in own.records().values():
        own.stop(record)
    own.stop_leftovers()


def a_spec(tmp_path: Path, code: str, *, ports: tuple[int, ...] = ()) -> Spec:
    return Spec("worker", (sys.executable, "-c", code), {}, tmp_path, ports, stop_timeout_s=0.5)


def test_what_feast_sets_for_its_own_server_does_not_reach_a_child(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*NOT_INHERITED, "RANKSTREAM_KEPT"):
        monkeypatch.setenv(name, "set")

    child = processes.start(a_spec(tmp_path, SLEEPER)).process()

    assert child is not None
    # Linux shows an environment of nothing until the child's own program has one.
    eventually(lambda: bool(child.environ()))
    environ = child.environ()
    assert environ.get("RANKSTREAM_KEPT") == "set"
    assert not set(NOT_INHERITED) & set(environ)


def test_a_nice_process_yields_to_other_sessions(processes: Processes, tmp_path: Path) -> None:
    spec = replace(a_spec(tmp_path, SLEEPER), nice=10)

    child = processes.start(spec).process()

    assert child is not None
    assert child.nice() == 10
    autogroup = Path(f"/proc/{child.pid}/autogroup")
    if autogroup.exists():  # Linux, built with it
        assert autogroup.read_text().endswith(" nice 10\n")


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def child_of(tmp_path: Path) -> int:
    path = tmp_path / "child"
    eventually(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def test_another_supervisor_sees_and_stops_what_the_first_one_started(
    tmp_path: Path, processes: Processes
) -> None:
    record = processes.start(a_spec(tmp_path, SLEEPER))

    second = Processes(processes.state)
    seen = second.running()
    second.stop(seen["worker"])

    assert seen == {"worker": record}
    assert processes.running() == {}
    assert second.records() == {}


def test_a_killed_process_no_longer_counts_as_running(tmp_path: Path, processes: Processes) -> None:
    record = processes.start(a_spec(tmp_path, SLEEPER))

    os.kill(record.pid, 9)
    eventually(lambda: processes.running() == {})

    assert list(processes.records()) == ["worker"]


def test_a_process_that_ignores_sigterm_is_killed_after_its_time(
    tmp_path: Path, processes: Processes
) -> None:
    code = DEAF.format(ready="open('ready', 'w').close()")
    record = processes.start(a_spec(tmp_path, code))
    eventually((tmp_path / "ready").exists)

    processes.stop(record)

    assert not is_alive(record.pid)


@pytest.mark.parametrize("options", ["", ", start_new_session=True"])
def test_children_end_with_their_parent(tmp_path: Path, processes: Processes, options: str) -> None:
    record = processes.start(a_spec(tmp_path, PARENT.format(options=options)))
    child = child_of(tmp_path)

    processes.stop(record)

    assert not is_alive(child)


@pytest.mark.parametrize("options", ["", ", start_new_session=True"])
def test_orphans_of_a_killed_parent_are_stopped(
    tmp_path: Path, processes: Processes, options: str
) -> None:
    record = processes.start(a_spec(tmp_path, PARENT.format(options=options)))
    child = child_of(tmp_path)
    os.kill(record.pid, 9)
    eventually(lambda: record.process() is None)

    processes.stop(record)
    processes.stop_leftovers()

    assert not is_alive(child)


def test_a_stranger_with_a_recycled_pid_is_left_alone(tmp_path: Path, processes: Processes) -> None:
    stranger = psutil.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    stale = Record("worker", stranger.pid, start_mark(stranger.pid) - 1, (), stop_timeout_s=0.5)
    path = processes.record_path("worker")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(vars(stale)))

    running = processes.running()
    processes.stop(processes.records()["worker"])
    processes.stop_leftovers()
    untouched = is_alive(stranger.pid)
    stranger.kill()
    stranger.wait()

    assert running == {}
    assert untouched
    assert processes.records() == {}


def test_a_process_that_dies_at_the_start_shows_its_last_lines_and_its_log(
    tmp_path: Path, processes: Processes
) -> None:
    record = processes.start(a_spec(tmp_path, "raise SystemExit('no such model')"))

    with pytest.raises(StartFailed) as caught:
        processes.await_ready(record, lambda: False, WAIT_S)

    assert "worker (pid" in str(caught.value)
    assert "no such model" in str(caught.value)
    assert str(processes.log_path("worker")) in str(caught.value)


def test_a_process_that_is_never_ready_is_named_with_the_time_waited(
    tmp_path: Path, processes: Processes
) -> None:
    record = processes.start(a_spec(tmp_path, SLEEPER))

    with pytest.raises(StartFailed, match=r"start_failed: worker .* was not ready after 0\.1 s"):
        processes.await_ready(record, lambda: False, 0.1)


def test_a_taken_port_says_by_whom_and_starts_nothing(tmp_path: Path, processes: Processes) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(PortTaken) as caught:
            processes.start(a_spec(tmp_path, SLEEPER, ports=(port,)))

    assert f"worker needs port {port}, where pid {os.getpid()} (" in str(caught.value)
    assert processes.records() == {}


def test_usage_counts_children(tmp_path: Path, processes: Processes) -> None:
    record = processes.start(a_spec(tmp_path, PARENT.format(options="")))
    child_of(tmp_path)

    together = processes.usage()

    assert together.rss_bytes > psutil.Process(record.pid).memory_info().rss
    assert together.cpu_s > 0
