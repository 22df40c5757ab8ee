"""Write docs/settings.md from the settings classes.

    python -m deploy.settings_table > docs/settings.md

What a setting does stands, in this order, in its `Field(description=...)`, in MEANINGS, or in the
comment right above it. MEANINGS is for what a comment at the field would only repeat, and for
fields under a comment that speaks of several.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from rankstream.adapters.settings import ServiceSettings

ROOT: Final = Path(__file__).resolve().parents[1]

HEAD: Final = """\
# Settings

Written by `python -m deploy.settings_table > docs/settings.md`; do not edit.

A service reads these environment variables once, when it starts. An unknown variable with its
prefix and a value that is not allowed are refused by name. `python -m services.<name>
--check-config` starts nothing, and exits 0 if the settings are right, 1 if not. Times are
milliseconds (`_MS`) or seconds (`_S`); paths are relative to the working directory.

Two more are for everything at once, `make up`, the pipelines and each service, as rows and vectors
are laid out by them: `RANKSTREAM_USER_ATTRIBUTES` and `RANKSTREAM_ITEM_ATTRIBUTES` name further
numbers of users and items, separated by commas, that are features (at most 32 each). To change them
is to change the feature spec: the stream folds its log again, and models are trained anew; a model
of another spec is refused by name.
"""

BAR: Final = "\\|"  # inside a cell
UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))
TYPES: Final = {
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    bool: "true, false",
}


@dataclass(frozen=True)
class Setting:
    """One row: variable, default, what is allowed, what it does (empty if nobody says)."""

    variable: str
    default: str
    allowed: str
    meaning: str


def services(root: Path) -> list[str]:
    """Names of the services that have settings, sorted."""
    return sorted(path.parent.name for path in root.glob("services/*/settings.py"))


def settings_of(service: str) -> list[Setting]:
    """The settings of a service in the order of its class, those that all services have last."""
    module = importlib.import_module(f"services.{service}.settings")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, ServiceSettings)
        and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"services/{service}/settings.py has {len(found)} settings classes"
    return rows_of(service, module.PREFIX, found[0])


def rows_of(service: str, prefix: str, cls: type[ServiceSettings]) -> list[Setting]:
    """The settings of a class, its own fields first."""
    bases = [base for base in reversed(cls.__mro__) if issubclass(base, ServiceSettings)]
    comments = {field: said for base in bases for field, said in _comments(base).items()}
    own = set(cls.__annotations__)
    fields = sorted(cls.model_fields.items(), key=lambda field: field[0] not in own)
    return [
        Setting(
            variable=f"{prefix}{name.upper()}",
            default=_default(name, field),
            allowed=_allowed(field),
            meaning=_meaning(service, name, field, comments),
        )
        for name, field in fields
    ]


def _meaning(service: str, name: str, field: FieldInfo, comments: Mapping[str, str]) -> str:
    said = (field.description, MEANINGS.get(f"{service}.{name}"), MEANINGS.get(name))
    return next((text for text in said if text), comments.get(name, ""))


def _comments(cls: type[ServiceSettings]) -> dict[str, str]:
    """Field -> the comment lines right above it, or the string right below it."""
    lines = inspect.getsource(sys.modules[cls.__module__]).splitlines()
    body = next(
        node.body
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    comments: dict[str, str] = {}
    for node, below in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        at = node.lineno - 2  # the line above; ast counts from 1
        while lines[at].strip().startswith("#"):
            above.insert(0, lines[at].strip().lstrip("# "))
            at -= 1
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            above.append(inspect.cleandoc(str(below.value.value)).replace("\n", " "))
        if above:
            comments[node.target.id] = " ".join(above)
    return comments


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "none, must be set"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.15g}`"
    for unit_ms, unit in UNITS:
        if name.endswith(("_ms", "_ms_max")) and value >= unit_ms and value % unit_ms == 0:
            return f"`{value}` ({value // unit_ms} {unit})"
    return f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    optional = type(None) in get_args(kind)
    if optional:
        kind = next(part for part in get_args(kind) if part is not type(None))
    limits = ", ".join(_limits(field))
    said = TYPES[kind] + (f" {limits}" if limits else "")
    return f"{said}, or not set" if optional else said


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Gt):
            yield f"> {limit.gt}"
        elif isinstance(limit, annotated_types.Ge):
            yield f"≥ {limit.ge}"
        elif isinstance(limit, annotated_types.Lt):
            yield f"< {limit.lt}"
        elif isinstance(limit, annotated_types.Le):
            yield f"≤ {limit.le}"
        elif isinstance(limit, annotated_types.MinLen):
            yield "not empty" if limit.min_length == 1 else f"of {limit.min_length} or more"
        else:
            pattern = getattr(limit, "pattern", None)
            assert pattern is not None, f"a limit that the table cannot say: {limit!r}"
            yield f"like `{pattern}`"


def table(root: Path) -> str:
    """The whole page."""
    parts = [HEAD]
    for service in services(root):
        parts.append(f"\n## {service}\n\n| variable | default | allowed | what it does |")
        parts.append("\n| --- | --- | --- | --- |\n")
        for row in settings_of(service):
            meaning = row.meaning.replace("<", "&lt;")
            cells = (f"`{row.variable}`", row.default, row.allowed, meaning)
            parts.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |\n")
    return "".join(parts)


MEANINGS: Final[Mapping[str, str]] = {
    "host": "Address to listen on.",
    "port": "HTTP port; 0 takes a free one.",
    "retrieval.port": "HTTP port of health and metrics; 0 takes a free one.",
    "grpc_port": "gRPC port; 0 takes a free one.",
    "admin_host": "Address of the ports that only operators may reach.",
    "admin_port": "HTTP port of all routes, metrics and reasons; 0 takes a free one.",
    "admin_grpc_port": "gRPC port of all methods and reflection; 0 takes a free one.",
    "kafka_url": "Kafka bootstrap address.",
    "log_level": "Least severe lines that are logged.",
    "shutdown_timeout_s": "After SIGTERM, requests in flight have this long to end.",
    "redis_url": "Redis that holds the feature rows.",
    "ingest.clock_skew_ms_max": "An event further ahead of the clock is refused.",
    "ingest.event_age_ms_max": "An event older than this is refused.",
    "ingest.body_bytes_max": "A larger request body is refused with 413.",
    "ingest.queue_events_max": (
        "Events that wait for Kafka's ack; above it requests get 503. At least one full request."
    ),
    "ingest.batch_events_max": "Events in one record at most.",
    "ingest.batch_wait_ms": "An event waits this long for others to share its record.",
    "ingest.delivery_timeout_s": (
        "A record without Kafka's ack for this long has failed, and its request with it."
    ),
    "features.redis_timeout_s": "Redis that does not answer for this long counts as gone.",
    "features.snapshots": "Folder of the state snapshots.",
    "features.snapshot_every_s": "A snapshot is written this often.",
    "features.snapshot_every_records": "A snapshot is written after this many records, too.",
    "features.lake": "Folder of the lake, Parquet by date and hour.",
    "features.lake_flush_s": "Rows wait this long in memory before they are written to the lake.",
    "features.lake_flush_bytes": "Rows of more bytes are written to the lake at once.",
    "features.lateness_ms": (
        "The watermark runs this far behind the newest event; results change with it."
    ),
    "features.click_window_ms": (
        "Attribution window from impression to click, end included; labels change with it."
    ),
    "features.conversion_window_ms": (
        "Attribution window from impression to purchase, end included; labels change with it."
    ),
    "features.session_gap_ms": "A pause longer than this ends a session; sessions change with it.",
    "features.dedupe_ms": (
        "Event ids are remembered this long behind the watermark, so that duplicates change "
        "nothing."
    ),
    "features.clock_skew_ms_max": (
        "An event further ahead of its append time becomes a dead letter."
    ),
    "features.event_age_ms_max": "An event further behind its append time becomes a dead letter.",
    "features.batch_records": "Records that are folded and committed together at most.",
    "features.inbox_records": "Records read ahead of the fold, per partition, at most.",
    "features.dead_share_max": "A larger share of refused events stops the worker.",
    "features.dead_window_events": "The share is taken over this many events.",
    "retrieval.alias": "Alias of the retrieval model that is followed.",
    "retrieval.k_max": "Candidates of one request at most.",
    "retrieval.history_max": "Items of a user's history in one request at most.",
    "retrieval.exclude_max": "Excluded items in one request at most.",
    "retrieval.fresh_max": "Items that the index lacks at most; of more, the oldest are left out.",
    "retrieval.sources": (
        "JSON file of the sources of candidates (docs/retrieval.md); without, as they were tuned."
    ),
    "retrieval.shard": "Which part of the items it holds (docs/retrieval.md), from 0 on.",
    "retrieval.shards": "Of how many; 1: all items.",
    "artifacts": "Folder of the models; a pointer with a relative uri is below it.",
    "monitor.artifacts": "Folder of the models; training histograms are read from here.",
    "ranker.retrieval_url": (
        "gRPC address of the retrieval service; of several shards all, in their order, by commas."
    ),
    "ranker.n_default": "Items in an answer if the request does not say.",
    "ranker.n_max": "Items in the answer to a Recommend request at most.",
    "ranker.items_max": "Items to be ranked in a Rank request at most.",
    "ranker.candidates": "Candidates asked of retrieval.",
    "ranker.prerank_keep": (
        "Of them, those that a model's linear stand-in leaves to be ranked; 0: all. What is cut is"
        " never shown, not even explored."
    ),
    "ranker.features_timeout_ms": (
        "Redis has this long; then features are defaults and the reply says so."
    ),
    "ranker.features_late_max": (
        "Reads of Redis that are late in a row, before it is only probed."
    ),
    "ranker.features_probe_ms": "How often Redis is then asked.",
    "ranker.retrieval_timeout_ms": (
        "Retrieval has this long; then candidates are popular items and the reply says so."
    ),
    "ranker.queue_wait_ms": "Wait of a request to begin while the core is busy, at most.",
    "ranker.inflight_max": "Requests in flight; above it they are refused.",
    "ranker.log_delivery_timeout_s": "Kafka has this long to ack the record of an answer.",
    "ranker.answer_ttl_s": "An answer can be explained for this long.",
    "ranker.explore_epsilon": "Probability that epsilon-greedy explores a slot.",
    "ranker.policy_salt": "Seeds exploration together with the request id.",
    "ranker.retrieval_sources": "As RETRIEVAL_SOURCES, of the index in this process.",
    "ranker.policies": "JSON file of policies by name; `default` replaces epsilon-greedy.",
    "ranker.log_candidates": (
        "Keep in a slate's record what its policy read of all candidates, to run it again."
    ),
    "ranker.shadow_percent": "Share of answers that the shadow scores.",
    "ranker.canary_percent": "Share of requests that the canary answers; as many are its control.",
    "ranker.canary_latency_ms": "Scoring that takes longer counts as a failure.",
    "ranker.models_kept": "Models kept loaded at most.",
    "monitor.records_per_poll": "Records read at once at most.",
    "monitor.report_every_s": "The report and its metrics are made this often.",
    "monitor.window_ms": "All checks look at this much of the log's time.",
    "monitor.panes": "The window moves by this fraction of itself.",
    "monitor.slates_max": "Slates that wait for labels at most.",
    "monitor.early_labels_max": "Labels that wait for their slate at most.",
    "monitor.models_max": "Models watched at most; the oldest goes.",
    "monitor.observations_min": (
        "With fewer observations a drift or calibration check is inconclusive."
    ),
    "monitor.expected_clicks_min": (
        "With fewer expected clicks, observed over expected is inconclusive."
    ),
    "monitor.drift_alpha": "Drift must be significant at this level to alarm.",
    "monitor.psi_max": (
        "Drift must be larger than this, too: population stability index above what chance gives."
    ),
    "monitor.observed_expected_tolerance": "Observed over expected clicks may be this far from 1.",
    "monitor.observed_expected_z_max": "It must also be this many standard errors from 1 to alarm.",
    "monitor.ece_max": "Expected calibration error above what chance gives, at most.",
    "monitor.degraded_max": "Share of degraded answers at most.",
    "monitor.served_delay_ms_p99_max": "From serving to the record in the log, p99 at most.",
    "monitor.label_delay_ms_p99_max": "From an impression to its label in the log, p99 at most.",
    "monitor.group_lag_records_max": "Records that a watched consumer group may be behind.",
}


if __name__ == "__main__":
    sys.stdout.write(table(ROOT))
