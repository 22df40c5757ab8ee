"""`python -m bench.serving.capacity`: the tables of docs/capacity.md from the figures of `growth`.

Reads bench/out/serving.json, which `python -m bench.serving --only growth retrieval_10m` writes,
and puts the tables between the marks in the document; its text is by hand.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.figures import OUT, ROOT
from rankstream.features.rows import ITEM_ROW

DOCUMENT: Final = ROOT / "docs" / "capacity.md"
BEGIN: Final = "<!-- tables: python -m bench.serving.capacity -->"
END: Final = "<!-- end of tables -->"
PREFIX: Final = "serving.growth."
# Latency is measured at half of saturation, so nothing is planned above it.
LOAD: Final = 0.5
# Of a slate of 20 items with its vectors, in topic served and, for a while, in Redis.
RECORD_BYTES: Final = 8_400
ANSWER_TTL_S: Final = 900
# Of a row in Redis with its key, in its hash.
STORED_ROW_BYTES: Final = 1_100
# RANKER_ROWS_KEPT: the most popular items are most of what is asked for.
ROWS_KEPT: Final = 1_000_000
# That machines have: more memory than this has to be bought for itself.
GB_PER_CORE: Final = 4
FEATURES: Final = 40
CANDIDATES: Final = 500
MILLION: Final = 1_000_000
OF_10M: Final = "retrieval.10m.cpu_ms"


@dataclass(frozen=True)
class Size:
    """A load to be planned for."""

    per_s: float
    items: int
    candidates: int = CANDIDATES
    features: int = FEATURES


SIZES: Final = (
    Size(500, 100_000),
    Size(5_000, 1_000_000),
    Size(50_000, 10_000_000),
    Size(50_000, 10_000_000, candidates=100),
)


def request_ms(figures: Mapping[str, float], size: Size) -> float:
    """CPU of the ranker for a request, its index in the process.

    base + candidates x (candidate + features x candidate_feature) + search of the items.
    """
    each_us = figures["candidate_us"] + size.features * figures["candidate_feature_us"]
    return figures["base_ms"] + size.candidates * each_us / 1e3 + search_ms(figures, size.items)


def search_ms(figures: Mapping[str, float], items: int) -> float:
    """CPU of a search: above a million items by what was measured of ten."""
    exponent = figures["search_exponent"]
    if items > MILLION:
        exponent = math.log10(figures["search_10m_ms"] / figures["search_1m_ms"])
    return figures["search_1m_ms"] * math.pow(items / MILLION, exponent)


@dataclass(frozen=True)
class Plan:
    """What a load takes; memory is that of all processes of a kind together."""

    request_ms: float
    ranker_cores: int
    ranker_gb: float
    redis_cores: int
    redis_rows_gb: float
    redis_answers_gb: float
    kafka_cores: int
    served_mb_s: float

    @property
    def bottleneck(self) -> str:
        """What is hardest to have enough of."""
        memory_gb = {"ranker memory": self.ranker_gb, "answers in Redis": self.redis_answers_gb}
        most = max(memory_gb, key=lambda name: memory_gb[name])
        if memory_gb[most] > GB_PER_CORE * self.ranker_cores:
            return most
        cores = {"ranker": self.ranker_cores, "Redis": self.redis_cores, "Kafka": self.kafka_cores}
        return f"{max(cores, key=lambda name: cores[name])} cores"


def plan(figures: Mapping[str, float], size: Size) -> Plan:
    """Cores and memory at LOAD of saturation, one ranker process per core."""

    def cores(ms: float) -> int:
        return math.ceil(size.per_s * ms / 1_000 / LOAD)

    beside = figures["replicas_2.ranker_ms"] / figures["replicas_1.ranker_ms"]
    spent_ms = request_ms(figures, size) * max(beside, 1.0)
    rankers = cores(spent_ms)
    kept_bytes = min(size.items, ROWS_KEPT) * ITEM_ROW.itemsize
    each_gb = figures["process_gb"] + (size.items * figures["item_bytes"] + kept_bytes) / 1e9
    return Plan(
        spent_ms,
        rankers,
        rankers * each_gb,
        cores(figures["redis_ms"]),
        size.items * STORED_ROW_BYTES / 1e9,
        size.per_s * ANSWER_TTL_S * RECORD_BYTES / 1e9,
        cores(figures["kafka_ms"]),
        size.per_s * RECORD_BYTES / 1e6,
    )


def tables(figures: Mapping[str, float], command: str) -> str:
    """The coefficients and the plans, in Markdown."""
    names = {
        "base_ms": "ms a request, whatever it asks",
        "candidate_us": "µs a candidate",
        "candidate_feature_us": "µs a candidate and a feature of the trees",
        "fit_error": "largest relative error of these three",
        "search_1m_ms": "ms a search of 1 M items",
        "search_exponent": "exponent of the items, up to 1 M",
        "search_10m_ms": "ms a search of 10 M items, measured",
        "search_fit_error": "largest relative error of these two",
        "process_gb": "GB a ranker process without items",
        "item_bytes": "bytes an item in each process, its kept row aside",
        "replicas_1.ranker_ms": "ms a request at a steady pace, one ranker",
        "replicas_2.ranker_ms": "the same, two rankers on the machine",
        "redis_ms": "ms of Redis a further request",
        "kafka_ms": "ms of Kafka a further request",
    }
    lines = [f"Measured with `{command}`.", "", "| coefficient | value | |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {figures[name]:.3g} | {what} |" for name, what in names.items()]
    heads = (
        *("requests/s", "items", "candidates", "ms a request", "ranker cores", "ranker memory"),
        *("Redis cores", "rows", "answers", "Kafka cores", "served", "bottleneck"),
    )
    lines += ["", _row(heads), _row(["---"] * len(heads))]
    for size in SIZES:
        found = plan(figures, size)
        lines.append(
            _row(
                (
                    f"{size.per_s:,.0f}",
                    f"{size.items:,}",
                    f"{size.candidates}",
                    f"{found.request_ms:.2f}",
                    f"{found.ranker_cores:,}",
                    f"{found.ranker_gb:,.0f} GB",
                    f"{found.redis_cores}",
                    f"{found.redis_rows_gb:.1f} GB",
                    f"{found.redis_answers_gb:,.0f} GB",
                    f"{found.kafka_cores}",
                    f"{found.served_mb_s:,.0f} MB/s",
                    found.bottleneck,
                )
            )
        )
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def put(document: str, found: str) -> str:
    """The document with its tables replaced.

    >>> put(f"a\\n{BEGIN}\\nold\\n{END}\\nb", "new") == f"a\\n{BEGIN}\\n\\nnew\\n\\n{END}\\nb"
    True
    """
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{found}\n\n{END}{after}"


def main() -> int:
    """Write the tables."""
    rows = json.loads((OUT / "serving.json").read_text(encoding="utf-8"))
    of_growth = [row for row in rows if row["id"].startswith(PREFIX)]
    of_10m = [row["value"] for row in rows if row["id"] == OF_10M]
    if not of_growth or not of_10m:
        sys.stderr.write(
            "no_figures: bench/out/serving.json lacks growth or retrieval at 10 M. Nothing was"
            " written. Run `python -m bench.serving --only growth retrieval_10m`.\n"
        )
        return 1
    figures = {row["id"].removeprefix(PREFIX): row["value"] for row in of_growth}
    figures["search_10m_ms"] = of_10m[0]
    text = put(DOCUMENT.read_text(encoding="utf-8"), tables(figures, of_growth[0]["command"]))
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
