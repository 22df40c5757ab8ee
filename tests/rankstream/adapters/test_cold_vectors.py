"""Vectors of new items, and files that hold none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.adapters.cold_vectors import (
    ColdVectors,
    ContentVectors,
    Vocabulary,
    read_cold_vectors,
    write_cold_vectors,
)
from rankstream.contracts.content import Content, content_of, number_term
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidArtifact
from rankstream.pb.events_pb2 import Item

COLD = ColdVectors({"tea": np.array([1, 2], np.float32)}, np.array([3, 4], np.float32))


CONTENT = ContentVectors(
    np.array([10, 0], np.float32),
    Vocabulary(
        np.sort(
            np.array(
                [id64("tag:hot"), id64("word:cup"), id64("word:of"), number_term("price", 1)],
                np.uint64,
            )
        ),
        {"price": np.array([5.0, 9.0]), "year": np.empty(0)},
    ),
    np.arange(8, dtype=np.float32).reshape(4, 2),
)
WORDS = st.lists(st.sampled_from(["Cup", "of", "tea", "CUP", "ﬁne"]), max_size=8)


WHOLE = replace(COLD, by_content=CONTENT)


def told(cold: ColdVectors, content: Content) -> tuple[list[float], bool]:
    vector, by_content = cold.of(content)
    return vector.tolist(), by_content


def slow_vector(item: Item) -> np.ndarray | None:
    """A term at a time, out of the strings."""
    place = {int(term): at for at, term in enumerate(CONTENT.vocabulary.terms)}
    words = {word.casefold().replace("ﬁ", "fi") for word in item.title.split()}
    known = [place[id64(f"word:{w}")] for w in words if id64(f"word:{w}") in place]
    facts = [place[id64(f"tag:{t}")] for t in set(item.tags) if id64(f"tag:{t}") in place]
    if 5 <= item.attributes.get("price", 0) < 9:
        facts.append(place[number_term("price", 1)])
    if not known and not facts:
        return None
    vector = CONTENT.base.copy()
    for at in facts:
        vector += CONTENT.vectors[at]
    for at in known:
        vector += CONTENT.vectors[at] / np.sqrt(len(known))
    return vector


@given(WORDS, st.lists(st.sampled_from(["hot", "cold"]), max_size=3), st.sampled_from([1, 5, 8, 9]))
def test_an_item_has_the_sum_of_what_is_known_of_its_content(
    words: list[str], tags: list[str], price: float
) -> None:
    item = Item(title=" ".join(words), tags=tags, attributes={"price": price, "odd": 1.0})

    found = CONTENT.of(content_of(item))

    expected = slow_vector(item)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(WORDS, st.permutations(["hot", "cold", "x"]), st.randoms(use_true_random=False))
def test_the_order_of_words_and_tags_and_their_repeats_do_not_change_a_bit(
    words: list[str], tags: list[str], random: Random
) -> None:
    shuffled = random.sample(words, len(words))
    item = Item(title=" ".join(words), description="of", tags=tags)
    other = Item(title="of", description=", ".join([*shuffled, *words]), tags=[*tags[::-1], "hot"])

    assert told(WHOLE, content_of(item)) == told(WHOLE, content_of(other))


def test_content_that_is_written_is_read(tmp_path: Path) -> None:
    write_cold_vectors(tmp_path / "cold.npz", WHOLE)

    cold = read_cold_vectors(tmp_path, dimensions=2)

    item = Item(title="a cup", tags=["hot"], category="tea", attributes={"price": 6, "year": 1})
    assert told(cold, content_of(item)) == told(WHOLE, content_of(item))
    assert told(cold, content_of(item))[1]
    assert cold.by_content is not None
    assert {name: cuts.tolist() for name, cuts in cold.by_content.vocabulary.edges.items()} == {
        "price": [5.0, 9.0],
        "year": [],
    }
    # Of this one no more than its category is known.
    assert told(cold, content_of(Item(title="unheard", category="tea"))) == ([1, 2], False)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("term", np.array([2, 1, 3, 4], np.uint64)),
        ("term", np.array([1.0, 2.0, 3.0, 4.0])),
        ("term_vectors", np.full((4, 2), np.nan, np.float32)),
        ("term_vectors", np.zeros((3, 2), np.float32)),
        ("base", np.zeros(3, np.float32)),
        ("cuts", np.array([1, 0])),
        ("edges", np.array([np.inf, 1.0])),
    ],
)
def test_content_that_does_not_belong_together_is_refused_by_name(
    tmp_path: Path, column: str, value: np.ndarray
) -> None:
    write_cold_vectors(tmp_path / "cold.npz", WHOLE)
    with np.load(tmp_path / "cold.npz") as columns:
        np.savez(tmp_path / "cold.npz", **{**columns, column: value})

    with pytest.raises(InvalidArtifact, match=r"vectors of \(4,\) terms"):
        read_cold_vectors(tmp_path, dimensions=2)


def test_content_that_lacks_a_column_is_refused_by_name(tmp_path: Path) -> None:
    write_cold_vectors(tmp_path / "cold.npz", WHOLE)
    with np.load(tmp_path / "cold.npz") as columns:
        some = {name: columns[name] for name in columns.files if name != "edges"}
    np.savez(tmp_path / "cold.npz", **some)

    with pytest.raises(InvalidArtifact, match="is not a file of vectors"):
        read_cold_vectors(tmp_path, dimensions=2)


def test_what_is_written_is_read_and_other_categories_have_the_rest(tmp_path: Path) -> None:
    write_cold_vectors(tmp_path / "cold.npz", COLD)

    cold = read_cold_vectors(tmp_path, dimensions=2)

    assert told(cold, Content("tea")) == ([1, 2], False)
    assert told(cold, Content("never seen")) == ([3, 4], False)


def test_a_file_that_holds_no_such_vectors_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="is not a file of vectors"):
        read_cold_vectors(tmp_path, dimensions=2)
    write_cold_vectors(tmp_path / "cold.npz", COLD)
    with pytest.raises(InvalidArtifact, match="1 categories and the rest"):
        read_cold_vectors(tmp_path, dimensions=3)
