"""The page on sources shows a file that retrieval takes, and names every source."""

from __future__ import annotations

import re
from pathlib import Path

from rankstream.contracts.sources import NAMES, decode_sources

PAGE = Path(__file__).resolve().parents[2] / "docs" / "retrieval.md"


def test_the_example_is_a_configuration_of_sources() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.S)

    decode_sources(example.encode(), "retrieval.md")


def test_every_source_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M)) >= set(NAMES)
