"""Which rows trained a model: written down with the training, read again later.

Two tables in the lake beside its others. `trainings` has a row for each data version: up to which
offset of each partition, until which event time, and with which facts of items it was made. Rows of
`events` and `served` and final labels never change and offsets only grow, so this finds the same
rows whatever was compacted or vacuumed since, as long as their days are kept. `catalogue` has what
was known of items, and since when; a row for each change that a training saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelines.features.lake import Logged, read_log
from pipelines.features.logged import Slates, Which, read_slates
from pipelines.features.replay import NOTHING_KNOWN, ItemFacts
from pipelines.features.upkeep import first_line
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import DependencyUnavailable, NotFound

TRAININGS: Final = "trainings"
CATALOGUE: Final = "catalogue"

_TRAININGS: Final = pa.schema(
    [
        ("data_version", pa.string()),
        ("read_ms", pa.int64()),  # as of when `catalogue` holds
        ("until_ms", pa.int64()),
        ("events_version", pa.int64()),  # of the Delta table, when it was read
        ("ends", pa.string()),  # JSON: partition -> offset after its last event
        ("which", pa.string()),  # logged.Which; null in trainings before there was a choice
        ("served_ends", pa.string()),  # JSON, as `ends`, of table `served`
        ("label_ends", pa.string()),  # of table `labels`
        ("from_ms", pa.int64()),  # impressions from here on are rows; null: all of them
    ]
)
_CATALOGUE: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("category", pa.string()),
        ("attributes", pa.string()),  # JSON
        ("text", pa.string()),  # JSON: title, description, tags; null before it was kept
        ("read_ms", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Reading:
    """What a training read: `ends` as of `Logged.ends`, event times up to `until_ms`, and the ends
    of `Slates.ends`. Impressions from `from_ms` on were rows.
    """

    data_version: str
    read_ms: int
    until_ms: int
    events_version: int
    ends: Mapping[int, int]
    which: Which
    served_ends: Mapping[int, int]
    label_ends: Mapping[int, int]
    from_ms: int


def remember(lake: Path, reading: Reading, items: Mapping[str, ItemFacts]) -> None:
    """Write down what a training reads, facts of items first.

    Raises: DependencyUnavailable: the lake cannot be written.
    """
    known = _catalogue(lake, reading.read_ms)
    changed = {
        name: facts for name, facts in items.items() if known.get(name) != _comparable(facts)
    }
    rows = {
        "item_id": list(changed),
        "category": [facts.category for facts in changed.values()],
        "attributes": [_attributes(facts) for facts in changed.values()],
        "text": [_text(facts) for facts in changed.values()],
        "read_ms": [reading.read_ms] * len(changed),
    }
    training = {
        "data_version": [reading.data_version],
        "read_ms": [reading.read_ms],
        "until_ms": [reading.until_ms],
        "events_version": [reading.events_version],
        "ends": [json.dumps(reading.ends)],
        "which": [reading.which],
        "served_ends": [json.dumps(reading.served_ends)],
        "label_ends": [json.dumps(reading.label_ends)],
        "from_ms": [reading.from_ms],
    }
    try:
        if changed:
            _append(lake / CATALOGUE, pa.table(rows, schema=_CATALOGUE))
        _append(lake / TRAININGS, pa.table(training, schema=_TRAININGS))
    except (OSError, DeltaError) as error:
        raise DependencyUnavailable(
            f"dependency_unavailable: lake {lake}: {first_line(error)}. What was trained on is not"
            " written down, and nothing was registered. Mend the folder and train again."
        ) from None


def reading_of(lake: Path, data_version: str) -> Reading:
    """What the rows of this data version were made from.

    Raises: NotFound: no training of this lake had it.
    """
    found = _rows(lake / TRAININGS, ds.field("data_version") == data_version)
    if not found:
        raise NotFound(
            f"not_found: lake {lake} knows of no training on data version {data_version!r}."
            " Nothing was read. Name the lake that it was trained from."
        )
    newest = max(found, key=lambda row: int(row["read_ms"]))
    return Reading(
        data_version=data_version,
        read_ms=int(newest["read_ms"]),
        until_ms=int(newest["until_ms"]),
        events_version=int(newest["events_version"]),
        ends=_ends(newest["ends"]),
        which=Which(str(newest.get("which") or Which.REPLAYED)),
        served_ends=_ends(newest.get("served_ends")),
        label_ends=_ends(newest.get("label_ends")),
        from_ms=int(newest.get("from_ms") or 0),
    )


def _ends(stored: str | int | None) -> dict[int, int]:
    return {int(p): offset for p, offset in json.loads(str(stored or "{}")).items()}


def read_again(lake: Path, reading: Reading) -> tuple[Logged, dict[str, ItemFacts], Slates]:
    """The events, the facts of items and the slates that a training read.

    Raises: InvalidInput: none of the events are kept.
    """
    log = read_log(lake, until_ms=reading.until_ms, limits=TimeLimits(), before=reading.ends)
    known = _catalogue(lake, reading.read_ms)
    facts = {name: _facts(*stored) for name, stored in known.items()}
    ends = reading.served_ends, reading.label_ends
    return log, facts, read_slates(lake, until_ms=reading.until_ms, before=ends)


def _catalogue(lake: Path, as_of_ms: int) -> dict[str, tuple[str, str, str]]:
    """item -> category, attributes and text as JSON, the last that was read up to a time."""
    found = _rows(lake / CATALOGUE, pc.field("read_ms") <= as_of_ms)
    found.sort(key=lambda row: int(row["read_ms"]))
    return {
        str(row["item_id"]): (
            str(row["category"]),
            str(row["attributes"]),
            str(row.get("text") or _text(NOTHING_KNOWN)),
        )
        for row in found
    }


def _comparable(facts: ItemFacts) -> tuple[str, str, str]:
    return facts.category, _attributes(facts), _text(facts)


def _facts(category: str, attributes: str, text: str) -> ItemFacts:
    title, description, tags = json.loads(text)
    return ItemFacts(category, json.loads(attributes), title, description, tuple(tags))


def _text(facts: ItemFacts) -> str:
    return json.dumps([facts.title, facts.description, facts.tags])


def _attributes(facts: ItemFacts) -> str:
    return json.dumps(dict(facts.attributes), sort_keys=True)


def _rows(path: Path, wanted: ds.Expression) -> list[dict[str, str | int]]:
    try:
        rows: list[dict[str, str | int]] = (
            DeltaTable(str(path)).to_pyarrow_table(filters=wanted).to_pylist()
        )
    except TableNotFoundError:
        return []
    return rows


def _append(path: Path, rows: pa.Table) -> None:
    path.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), rows, mode="append", schema_mode="merge")
