"""The page on policies shows a file that the ranker takes."""

from __future__ import annotations

import re
from pathlib import Path

from rankstream.contracts.policy import decode_policies
from services.ranker.policies import Policies

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"


def test_the_example_is_a_file_of_policies() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.S)

    named = decode_policies(example.encode(), "policies.md")

    assert set(named) == {"default", "varied"}
    assert Policies(named, epsilon=0.05, salt="s").default.policy == named["default"]
