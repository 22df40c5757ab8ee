"""One fault run: everything started, fed, broken, waited for, and stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import redis
from deltalake import DeltaTable

from deploy.local.processes import Processes
from deploy.local.services import Ports
from deploy.local.tools import Tools
from rankstream import topics
from rankstream.adapters.kafka import Record
from tests.chaos import faults, watch
from tests.chaos.faults import Fault
from tests.chaos.log import Ends, read_topic
from tests.chaos.produce import Feed
from tests.chaos.servers import Broker, Disk, RedisServer, WorkerProcess
from tests.chaos.traffic import BASE_MS, END_MS, Traffic
from tests.chaos.watch import Commits, Recovery

POLL_S: Final = 0.05
WATCH_S: Final = 0.25
PROBE_EVERY_S: Final = 0.25
HTTP_TIMEOUT_S: Final = 1.0
COME_BACK_S: Final = 0.5
OWN_EXITS_MAX: Final = 40
# No recovery takes so long: whoever waits longer waits for ever.
STALL_S: Final = 90.0
DISK_FULL_S: Final = 8.0
DISK_FULL_S_MAX: Final = 30.0
SETTLED_S: Final = 3.0
Say = Callable[[str], None]
READ: Final = (topics.EVENTS, topics.ITEMS, topics.LABELS, topics.SESSIONS, topics.EVENTS_DEAD)


class NotSettled(Exception):
    """The run did not come to its end in time."""


@dataclass
class Outcome:
    """What a run has left behind, and how it went."""

    recoveries: list[Recovery] = field(default_factory=list)
    own_exits: list[str] = field(default_factory=list)
    snapshots_failed: int = 0
    disk_way: str = ""
    log: dict[str, dict[int, list[Record]]] = field(default_factory=dict)
    redis_rows: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lake: Path = Path()
    fed_s: float = 0.0
    settled_s: float = 0.0


class Run:
    """The loop. `timeout_s` bounds everything up to the last commit."""

    def __init__(
        self, folder: Path, tools: Tools, made: Traffic, plan: Sequence[Fault], timeout_s: float
    ) -> None:
        ports = Ports.free()
        self._processes = Processes(folder)
        self._broker = Broker(self._processes, tools, ports)
        self._redis = RedisServer(self._processes, tools, ports)
        self._client = redis.Redis.from_url(self._redis.url, socket_timeout=HTTP_TIMEOUT_S)
        self._disk = Disk(folder / "snapshots")
        self._workers = [
            WorkerProcess(self._processes, ports, port, f"worker-{number}")
            for number, port in enumerate((ports.features, ports.ranker))
        ]
        self._wanted = [True, False]
        self._start_at_s = [0.0, 0.0]
        self._running = [False, False]
        self._made, self._plan, self._timeout_s = made, list(plan), timeout_s
        self._state = folder
        self._commits: Commits = dict.fromkeys(range(watch.PARTITIONS), watch.NEVER)
        self._disk_free_s = 0.0
        self._watched_s = self._probe_at_s = 0.0
        self._moved_s = time.monotonic()
        self.outcome = Outcome(disk_way=self._disk.way, lake=folder / "lake")

    def run(self, say: Say) -> Outcome:
        """Feed and break, then wait until all is final; whatever happens, all is stopped."""
        started_s = time.monotonic()
        deadline_s = started_s + self._timeout_s
        try:
            self._broker.start()
            self._redis.start()
            feed = Feed(self._broker.url, self._made)
            feed.start()
            try:
                while not (feed.ended and self._recovered()):
                    self._step(deadline_s)
                    share = self._share()
                    feed.committed(share)
                    self._break(share, say)
                    self._probe(feed)
            finally:
                feed.stop()
            assert not feed.errors, feed.errors[:3]
            self.outcome.fed_s = time.monotonic() - started_s
            say(f"fed and broken in {self.outcome.fed_s:.0f} s; waiting for the rest")
            feed.tick_everywhere(END_MS)
            self._settle(deadline_s)
            self.outcome.settled_s = time.monotonic() - started_s
            self._collect()
        finally:
            self._stop()
        return self.outcome

    def _step(self, deadline_s: float) -> None:
        """One look at everything."""
        if time.monotonic() > deadline_s:
            raise self._not_settled(f"not done after {self._timeout_s:g} s")
        if time.monotonic() > self._moved_s + STALL_S:
            raise self._not_settled(f"nothing was committed for {STALL_S:g} s")
        self._supervise()
        found = watch.commits(self._client, watch.USERS)
        if found is not None:
            if found != self._commits:
                self._moved_s = time.monotonic()
            self._commits = found
            for recovery in self.outcome.recoveries:
                recovery.see(found)
        if time.monotonic() - self._watched_s > WATCH_S:
            self._watched_s = time.monotonic()
            self._redis.watch()
        time.sleep(POLL_S)

    def _not_settled(self, what: str) -> NotSettled:
        said = {
            worker.name: f"partitions {sorted(_counts(worker).get('partitions', ()))}"
            for worker in self._workers
            if worker.pid is not None
        }
        return NotSettled(
            f"{what}: {self._share():.3f} of the log committed, {len(self._plan)} faults to come,"
            f" {said}. The logs of the workers: {self._state / 'logs'}"
        )

    def _recovered(self) -> bool:
        """Whether everything has been broken, and is whole again."""
        ended = all(recovery.seconds is not None for recovery in self.outcome.recoveries)
        return ended and not self._plan and not self._disk.full

    def _probe(self, feed: Feed) -> None:
        """Once the traffic is over, give every partition something to commit now and then."""
        if feed.ended and time.monotonic() >= self._probe_at_s:
            self._probe_at_s = time.monotonic() + PROBE_EVERY_S
            feed.tick_everywhere(BASE_MS)

    def _share(self) -> float:
        done = sum(commit.first for commit in self._commits.values())
        return min(1.0, done / len(self._made.records))

    def _supervise(self) -> None:
        """Start who is wanted and does not run: a worker that gives up comes back, as under any
        supervisor.
        """
        for number, worker in enumerate(self._workers):
            pid = worker.pid
            if pid is not None:
                self._disk.limit(pid, worker.log)
                continue
            if self._running[number]:
                self._running[number] = False
                if self._wanted[number]:
                    self._gave_up(worker)
                    self._start_at_s[number] = time.monotonic() + COME_BACK_S
            if self._wanted[number] and time.monotonic() >= self._start_at_s[number]:
                worker.start(self._redis.url, self._disk.folder)
                self._running[number] = True

    def _gave_up(self, worker: WorkerProcess) -> None:
        self.outcome.own_exits.append(_last_line(worker.log))
        if len(self.outcome.own_exits) > OWN_EXITS_MAX:
            raise NotSettled(
                f"workers ended by themselves {len(self.outcome.own_exits)} times (limit"
                f" {OWN_EXITS_MAX}), the last one with: {self.outcome.own_exits[-1][:400]}"
            )

    def _break(self, share: float, say: Say) -> None:
        if self._disk.full and time.monotonic() > self._disk_free_s:
            # Until it was felt, unless nobody writes there at all.
            late = time.monotonic() > self._disk_free_s + DISK_FULL_S_MAX
            if late or self._snapshots_failed():
                self._disk.free()
        if not self._plan or share < self._plan[0].share:
            return
        nothing_to_lose = {
            faults.REDIS: not self._redis.gained(),
            faults.KILL: not self._live(),
        }
        if nothing_to_lose.get(self._plan[0].kind):
            return  # in a moment
        fault = self._plan.pop(0)
        if fault.kind == faults.DISK:
            self._disk.fill()
            self._disk_free_s = time.monotonic() + DISK_FULL_S
            say(f"{share:6.1%}  {fault.kind}: {self._disk.way}")
            return
        recovery = self._recovery(fault, share)
        hit = f"partitions {[*recovery.affected]}" if recovery.affected else ""
        say(f"{share:6.1%}  {fault.kind} {recovery.detail} {hit}")

    def _recovery(self, fault: Fault, share: float) -> Recovery:
        """Do it, and watch for its end."""
        before = watch.commits(self._client, watch.USERS) or self._commits
        affected: Sequence[int] = range(watch.PARTITIONS)
        new_owner, detail = False, ""
        started_s = time.monotonic()
        if fault.kind == faults.KILL:
            live = self._live()
            victim = live[int(fault.draw * len(live))]
            affected, detail, new_owner = self._owned(victim), f"worker {victim}", True
            started_s = time.monotonic()
            self._workers[victim].kill()
            self._running[victim] = False
            self._start_at_s[victim] = time.monotonic() + fault.restart_s
        elif fault.kind == faults.JOIN:
            affected, new_owner, self._wanted[1] = (), True, True
            self._start_at_s[1] = 0.0
        elif fault.kind == faults.LEAVE:
            affected, new_owner, self._wanted[1] = self._owned(1), True, False
            self._workers[1].terminate()
        elif fault.kind == faults.BROKER:
            self._broker.kill()
            self._broker.start()
            detail = f"away for {time.monotonic() - started_s:.1f} s"
        else:
            cut = self._redis.kill_and_cut()
            self._redis.start()
            detail = f"{cut:,} bytes of its file lost"
        recovery = Recovery(
            fault.kind, share, detail, before, affected, new_owner, started_s=started_s
        )
        self.outcome.recoveries.append(recovery)
        return recovery

    def _live(self) -> list[int]:
        """Workers whose process runs."""
        return [number for number, worker in enumerate(self._workers) if worker.pid is not None]

    def _owned(self, number: int) -> list[int]:
        """Partitions of a worker, as it says itself; none if it says nothing."""
        counts = _counts(self._workers[number])
        return sorted(map(int, counts.get("partitions", ())))

    def _settle(self, deadline_s: float) -> None:
        """Return when nothing has been left to fold, to close or to write for some seconds."""
        ends: dict[str, list[int]] = {}
        since_s, reader = time.monotonic(), Ends(self._broker.url)
        while time.monotonic() < since_s + SETTLED_S:
            self._step(deadline_s)
            found = {topic.name: reader.of(topic) for topic in (*READ, topics.FEATURE_UPDATES)}
            said = [_counts(worker) for worker in self._workers]
            if found != ends or not self._at(found, said):
                ends, since_s = found, time.monotonic()
        reader.close()
        self.outcome.counts = _added(said)

    def _at(self, ends: dict[str, list[int]], said: Sequence[dict[str, Any]]) -> bool:
        """Whether both stages and the lake are at these ends, and every partition has its owner.

        A partition that is on its way from one worker to another is in the counts of none.
        """
        owned = sorted(
            (int(partition), count["next_offset"])
            for counts in said
            for partition, count in counts.get("partitions", {}).items()
        )
        if owned != list(enumerate(ends[topics.EVENTS.name])):
            return False
        users = watch.commits(self._client, watch.USERS)
        items = watch.commits(self._client, watch.ITEMS)
        if users is None or items is None:
            return False
        of_items = list(
            zip(ends[topics.FEATURE_UPDATES.name], ends[topics.ITEMS.name], strict=True)
        )
        return (
            [users[p].first for p in range(watch.PARTITIONS)] == ends[topics.EVENTS.name]
            and [items[p].offsets[:2] for p in range(watch.PARTITIONS)] == of_items
            and all(
                _lake_offsets(self.outcome.lake, topic) == ends[topic.name]
                for topic in (topics.EVENTS, topics.LABELS)
            )
        )

    def _collect(self) -> None:
        """Take everything that is to be compared; the workers stop on request before."""
        for worker in self._workers:
            worker.stop()
        self.outcome.snapshots_failed = self._snapshots_failed()
        for topic in READ:
            self.outcome.log[topic.name] = read_topic(self._broker.url, topic)
        self.outcome.redis_rows = watch.hashes(self._client)

    def _snapshots_failed(self) -> int:
        """So far, as the workers say."""
        logs = [worker.log for worker in self._workers if worker.log.exists()]
        return sum(log.read_bytes().count(b"snapshot_failed") for log in logs)

    def _stop(self) -> None:
        for record in reversed(self._processes.records().values()):
            self._processes.stop(record)
        self._client.close()
        self._disk.close()


def _counts(worker: WorkerProcess) -> dict[str, Any]:
    if worker.pid is None:
        return {}
    try:
        answer = httpx.get(f"{worker.url}/v1/counts", timeout=HTTP_TIMEOUT_S)
        return dict(answer.json())
    except (httpx.TransportError, ValueError):
        return {}


def _added(said: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The counts of all workers together."""
    counts: Counter[str] = Counter()
    for one in said:
        counts.update({name: count for name, count in one.items() if type(count) is int})
    return dict(counts)


def _lake_offsets(lake: Path, topic: topics.Topic) -> list[int]:
    table = DeltaTable(str(lake / topic.name))
    return [
        table.transaction_version(f"lake:{topic.name}:{partition}") or 0
        for partition in range(topic.partitions)
    ]


def _last_line(log: Path) -> str:
    """The last line of a worker's log that is none of librdkafka's."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return next((line for line in reversed(lines) if not line.startswith("%")), "nothing said")
