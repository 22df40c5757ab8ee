"""The page on sources shows a file that retrieval takes, and names every source."""

from __future__ import annotations

import re
from pathlib import Path

from rankstream.adapters.settings import load_settings
from rankstream.contracts.sources import NAMES, decode_sources
from services.ranker.settings import PREFIX as RANKER
from services.ranker.settings import RankerSettings
from services.retrieval.settings import PREFIX as RETRIEVAL
from services.retrieval.settings import RetrievalSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "retrieval.md"


def test_the_example_is_a_configuration_of_sources() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.S)

    decode_sources(example.encode(), "retrieval.md")


def test_every_source_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M)) >= set(NAMES)


def test_the_ranker_of_the_example_asks_every_shard_in_its_order() -> None:
    example = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.S)[0]
    lines = [
        dict(re.findall(r"([A-Z_]+)=(\S+)", line))
        for line in example.splitlines()
        if "python -m" in line
    ]

    shards = [load_settings(RetrievalSettings, RETRIEVAL, line) for line in lines[:-1]]
    ranker = load_settings(RankerSettings, RANKER, lines[-1])

    assert [(shard.shard, shard.shards) for shard in shards] == [(0, 2), (1, 2)]
    asked = ",".join(f"127.0.0.1:{shard.grpc_port}" for shard in shards)
    assert ranker.retrieval_url == asked
