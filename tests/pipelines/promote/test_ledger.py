"""What an alias has held, and where a rollback goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.promote.ledger import (
    ROLLED_BACK,
    Promotion,
    append,
    before,
    of_model,
    read,
    standing,
)
from rankstream.errors import InvalidArtifact, NotFound


def a_line(model_id: str, *, alias: str = "champion", move: str = "promoted") -> Promotion:
    return Promotion(
        time_ms=1,
        role="ranker",
        alias=alias,
        model_id=model_id,
        version="1",
        data_version="d",
        sha256="s",
        uri=f"/models/{model_id}",
        who="ann",
        why="because",
        metrics={"auc": 0.7},
        move=move,
    )


def held(lines: list[Promotion]) -> list[str]:
    return [line.model_id for line in standing(lines, "ranker", "champion")]


def test_a_second_rollback_goes_further_back_and_not_to_what_was_left() -> None:
    lines = [a_line("a"), a_line("b"), a_line("x", alias="challenger"), a_line("c")]

    first = before(lines, "ranker", "champion")
    lines.append(a_line(first.model_id, move=ROLLED_BACK))
    second = before(lines, "ranker", "champion")

    assert (first.model_id, second.model_id) == ("b", "a")


def test_a_model_promoted_after_a_rollback_follows_on_what_the_rollback_restored() -> None:
    lines = [a_line("a"), a_line("b"), a_line("a", move=ROLLED_BACK), a_line("c")]

    assert held(lines) == ["a", "c"]
    assert before(lines, "ranker", "champion").model_id == "a"


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.data())
def test_rollbacks_undo_promotions_one_by_one(models: list[str], data: st.DataObject) -> None:
    lines = [a_line(model) for model in models]
    wanted = held(lines)

    for _ in range(data.draw(st.integers(0, len(wanted) - 1))):
        lines.append(a_line(before(lines, "ranker", "champion").model_id, move=ROLLED_BACK))
        # A model may stand more than once; what was left is gone from the end.
        assert held(lines) == wanted[: len(held(lines))]
        assert len(held(lines)) < len(wanted)
        wanted = held(lines)


def test_an_alias_without_a_predecessor_says_what_it_has_held() -> None:
    with pytest.raises(NotFound, match=r"ranker/champion has only held a\. Nothing"):
        before([a_line("a")], "ranker", "champion")
    with pytest.raises(NotFound, match="retrieval/champion has held no model"):
        before([a_line("a")], "retrieval", "champion")


def test_a_model_that_was_never_promoted_is_named_with_those_that_were() -> None:
    with pytest.raises(NotFound, match=r"no ranker b in the ledger \(known: a\)"):
        of_model([a_line("a")], "ranker", "b")


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    ledger = tmp_path / "models" / "promotions.jsonl"
    assert read(ledger) == []

    append(ledger, [a_line("a")])
    append(ledger, [a_line("b"), a_line("a", move=ROLLED_BACK)])

    assert read(ledger) == [a_line("a"), a_line("b"), a_line("a", move=ROLLED_BACK)]


@pytest.mark.parametrize("line", ["half a li", '{"time_ms": 1}', "[]"])
def test_a_line_that_is_not_ours_is_named(tmp_path: Path, line: str) -> None:
    ledger = tmp_path / "promotions.jsonl"
    append(ledger, [a_line("a")])
    with ledger.open("a") as file:
        file.write(line + "\n")

    with pytest.raises(InvalidArtifact, match=r"promotions\.jsonl:2: "):
        read(ledger)
