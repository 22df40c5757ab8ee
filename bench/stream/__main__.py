"""`python -m bench.stream [--only NAME ...]`: measure the features service.

Figures go to bench/out/stream.json; those of other measurements there stay.
"""

from __future__ import annotations

import argparse
import pstats
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.figures import OUT, Figure, figure, machine, ratio, write
from bench.stream.comparison import METARANK_EVENTS_PER_S, PEERS, compared
from bench.stream.freshness import freshness
from bench.stream.keys import FEW, MANY, with_keys
from bench.stream.recovery import recoveries
from bench.stream.servers import Servers, started
from bench.stream.throughput import (
    BATCH100,
    BATCH100_LAKE,
    SINGLE,
    Case,
    Rate,
    saturated,
    shared_out,
)
from deploy.local.environments import environment

PROFILE_LINES: Final = 45
TERMINATED: Final = 128 + signal.SIGTERM
CASES: Final[Mapping[str, Case]] = {
    "batch100": BATCH100,
    "batch100_lake": BATCH100_LAKE,
    "single": SINGLE,
}
COMPARED: Final = ("batch100", "single")
WORKERS: Final = (1, 2, 4)
# Of saturation: where freshness is measured, by the infix of the ids.
SHARES: Final = {"": 1 / 2, ".quarter": 1 / 4, ".eighth": 1 / 8}

Say = Callable[[str], None]
Measure = Callable[[Servers, int, Say], list[Figure]]


def _rates(name: str, rates: Sequence[Rate]) -> list[Figure]:
    return [
        figure(f"stream.{name}.events_per_cpu_s", [r.per_cpu_s for r in rates], "events/CPU-s"),
        figure(f"stream.{name}.events_per_s", [r.per_wall_s for r in rates], "events/s"),
    ]


def _told(name: str, rate: Rate, say: Say) -> Rate:
    busy = "" if rate.busy_cores is None else f"; machine busy: {rate.busy_cores:.2f} cores"
    say(
        f"{name}: {rate.per_cpu_s:,.0f} events per CPU-second, {rate.per_wall_s:,.0f} per second"
        f" ({rate.cpu_s:.1f} CPU-s{busy})"
    )
    return rate


def measure_throughput(name: str, servers: Servers, repeats: int, say: Say) -> list[Figure]:
    """One worker and a full log."""
    rates = [_told(name, saturated(servers, CASES[name]), say) for _ in range(repeats)]
    return _rates(name, rates)


def measure_freshness(servers: Servers, repeats: int, say: Say) -> list[Figure]:
    """At shares of what the worker manages, lake and all; the figure is that at half."""
    saturation = _told("saturation", saturated(servers, BATCH100_LAKE), say).per_wall_s
    found = []
    for name, share in SHARES.items():
        rate = saturation * share
        windows = freshness(servers, rate, repeats)
        for window in windows:
            say(f"at {rate:,.0f} events/s, p50 and p99 in ms: {window}")
        found += [
            Figure(f"stream.freshness{name}.events_per_s", rate, "events/s"),
            figure(f"stream.freshness{name}_ms_p50", [w.item_ms[0] for w in windows], "ms"),
            figure(f"stream.freshness{name}_ms_p99", [w.item_ms[1] for w in windows], "ms"),
            figure(f"stream.freshness{name}.user_ms_p50", [w.user_ms[0] for w in windows], "ms"),
            figure(f"stream.freshness{name}.user_ms_p99", [w.user_ms[1] for w in windows], "ms"),
            figure(
                f"stream.freshness{name}.events_per_cpu_s",
                [w.per_cpu_s for w in windows],
                "events/CPU-s",
            ),
        ]
    return found


def measure_scale(servers: Servers, repeats: int, say: Say) -> list[Figure]:
    """One, two and four workers, in turn."""
    rates: dict[int, list[Rate]] = {workers: [] for workers in WORKERS}
    for _ in range(repeats):
        for workers in WORKERS:
            rate = shared_out(servers, BATCH100, workers)
            rates[workers].append(_told(f"{workers} workers", rate, say))
    found = []
    for workers in WORKERS:
        found += _rates(f"scale{workers}", rates[workers])
    for workers in WORKERS[1:]:
        # CPU per event, so one over the rates.
        cost = ratio([r.per_cpu_s for r in rates[1]], [r.per_cpu_s for r in rates[workers]])
        found.append(Figure(f"stream.scale{workers}.cpu_ratio", *cost))
    return found


def measure_keys(servers: Servers, repeats: int, say: Say) -> list[Figure]:
    """The same traffic from 10^4 and from 10^6 users."""
    few, many = [], []
    for _ in range(repeats):
        few.append(with_keys(servers, FEW))
        many.append(with_keys(servers, MANY))
        say(f"keys: {few[-1]}, {many[-1]}")
    cost = ratio([m.cpu_s_per_event for m in many], [f.cpu_s_per_event for f in few])
    pairs, more = list(zip(few, many, strict=True)), MANY - FEW
    held = [(m.rss_bytes - f.rss_bytes) / more for f, m in pairs]
    stored = [(m.redis_bytes - f.redis_bytes) / more for f, m in pairs]
    return [
        Figure("stream.keys.cost_ratio", *cost),
        # Two decades have multiplied the cost by the ratio, so three by its power of 3/2.
        Figure("stream.keys.cost_ratio_1e7", cost[0] ** 1.5, "ratio, extrapolated"),
        figure("stream.keys.rows_per_event_1e4", [f.rows_per_event for f in few], "rows/event"),
        figure("stream.keys.rows_per_event_1e6", [m.rows_per_event for m in many], "rows/event"),
        figure("stream.keys.bytes", held, "bytes/user, worker"),
        figure("stream.keys.redis_bytes", stored, "bytes/user, Redis"),
        figure("stream.keys.rss_gb_1e6", [m.rss_bytes / 1e9 for m in many], "GB"),
    ]


def measure_recovery(servers: Servers, repeats: int, say: Say) -> list[Figure]:
    """kill -9 with 10^6 users."""
    found = recoveries(servers, MANY, repeats)
    for one in found:
        say(f"recovery: {one}")
    return [
        figure("stream.recovery_s", [r.first_s for r in found], "s"),
        figure("stream.recovery.all_s", [r.all_s for r in found], "s"),
        figure("stream.recovery.detected_s", [r.detected_s for r in found], "s"),
    ]


def measure_peers(servers: Servers, repeats: int, say: Say) -> list[Figure]:
    """The job in other frameworks, and this system beside them, in one run."""
    python = environment("peers")
    found = []
    for case_name in COMPARED:
        case = CASES[case_name]
        ours = f"stream.{case_name}.events_per_cpu_s"
        own = measure_throughput(case_name, servers, repeats, say)
        found += own
        for name in PEERS:
            rates = []
            for _ in range(repeats):
                rate = compared(servers, python, name, case.size)
                rates.append(_told(f"{name}, {case_name}", rate, say).per_cpu_s)
            row = figure(f"stream.peer.{name}.{case_name}.events_per_cpu_s", rates, "events/CPU-s")
            found.append(replace(row, against=ours, ratio=row.value / own[0].value))
        found.append(
            Figure(
                f"stream.peer.metarank.{case_name}.events_per_s",
                METARANK_EVENTS_PER_S,
                "events/s, measured elsewhere",
                against=ours.replace("_cpu_s", "_s"),
                ratio=METARANK_EVENTS_PER_S / own[1].value,
            )
        )
    return found


MEASUREMENTS: Final[Mapping[str, Measure]] = {
    **{name: partial(measure_throughput, name) for name in CASES},
    "freshness": measure_freshness,
    "scale": measure_scale,
    "keys": measure_keys,
    "recovery": measure_recovery,
    "peers": measure_peers,
}
# Throughput is measured beside the peers.
DEFAULT: Final = ("peers", "batch100_lake", "freshness", "scale", "keys", "recovery")


def profile(servers: Servers, name: str) -> None:
    """Print the functions of the worker's main thread by their own time."""
    path = Path(servers.folder / "profile")
    saturated(servers, CASES[name], profile=path)
    pstats.Stats(str(path)).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)


def main(argv: list[str], console: Console) -> int:
    """Measure what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m bench.stream", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--profile", choices=list(CASES), help="run that under cProfile; nothing is written"
    )
    chosen = parser.parse_args(argv)
    # Whatever ends the measurement, the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    say = partial(console.print, highlight=False, soft_wrap=True)
    with started() as servers:
        if chosen.profile:
            profile(servers, chosen.profile)
            return 0
        where = machine()
        say(f"machine: {where}")
        for name in chosen.only or DEFAULT:
            figures = MEASUREMENTS[name](servers, chosen.repeats, say)
            command = f"python -m bench.stream --only {name} --repeats {chosen.repeats}"
            write(figures, command=f"{command}  # {where}", path=OUT / "stream.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
