"""Vectors of new items, on items whose vectors follow from their tags, numbers and words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pipelines.train import cold
from pipelines.train.cold import fit_cold, ridge, vocabulary_of, with_cold
from pipelines.train.retrieval import ItemVectors, mean_towers
from rankstream.contracts.content import Content, content_of
from rankstream.contracts.ids import id64
from rankstream.pb.events_pb2 import Item

M, D = 300, 4
TAGS = ("red", "green", "blue")
WORDS = ("tea", "cup", "pot")


def an_item(number: int) -> Item:
    """Its category says nothing, its tag, year and one word of three say all."""
    return Item(
        item_id=f"i{number}",
        category=f"c{number % 2}",
        title=f"number{number} {WORDS[number // 3 % 3]}",
        tags=[TAGS[number % 3]],
        attributes={"year": 1900.0 + number % 100},
    )


def true_vector(number: int) -> np.ndarray:
    old = number % 100 < 50
    return np.array([number % 3 == 0, number % 3 == 1, number // 3 % 3 == 0, old], np.float32)


CONTENTS = [content_of(an_item(number)) for number in range(M)]
VECTORS = np.array([true_vector(number) for number in range(M)])
QUERIES = np.random.default_rng(1).normal(size=(50, D)).astype(np.float32)


def of(vectors: np.ndarray, popularity: np.ndarray | None = None) -> ItemVectors:
    likes = np.ones(len(vectors)) if popularity is None else popularity
    names = tuple(f"i{number}" for number in range(len(vectors)))
    return ItemVectors(names, vectors.astype(np.float32), likes.astype(np.float32))


def test_a_new_item_has_the_vector_that_its_content_foretells() -> None:
    vectors = fit_cold(of(VECTORS), CONTENTS, QUERIES, seed=1)

    for number in range(M, M + 20):
        found, by_content = vectors.of(content_of(an_item(number)))
        assert by_content
        assert np.abs(found - true_vector(number)).max() < 0.25


def test_content_that_says_no_more_than_categories_is_not_used() -> None:
    noise = np.random.default_rng(2).normal(size=(M, D))
    by_category = noise * 0.1 + np.arange(M)[:, None] % 2
    alone = [Content(content.category, words=content.words) for content in CONTENTS]

    vectors = fit_cold(of(by_category), alone, QUERIES, seed=1)

    assert vectors.by_content is None
    assert vectors.by_category.keys() == {"c0", "c1"}


def test_categories_are_means_of_what_was_liked() -> None:
    liked = np.arange(40) % 2 == 0
    contents = [Content("tea"), Content("tea"), Content("tea"), Content("rare")]
    contents += [Content("")] * 36

    vectors = fit_cold(of(VECTORS[:40], liked), contents, QUERIES, seed=1)

    assert vectors.by_content is None
    assert vectors.of(Content("tea"))[0].tolist() == VECTORS[[0, 2]].mean(axis=0).tolist()
    assert vectors.of(Content("rare"))[0].tolist() == vectors.rest.tolist()
    assert vectors.rest.tolist() == VECTORS[:40][liked].mean(axis=0).tolist()


def test_held_out_items_are_found_as_often_as_by_their_own_vectors() -> None:
    noisy = VECTORS + np.random.default_rng(3).normal(size=(M, D)) * 0.7
    new = np.arange(M, 2 * M)
    unseen = np.array([true_vector(number) for number in new.tolist()])
    unseen += np.random.default_rng(4).normal(size=(M, D)) * 0.7
    depth = M // 4

    vectors = fit_cold(of(noisy), CONTENTS, QUERIES, seed=1)

    found = np.array([vectors.of(content_of(an_item(number)))[0] for number in new.tolist()])
    last = -np.sort(-QUERIES @ noisy.T.astype(np.float32), axis=1)[:, depth - 1 : depth]
    as_often = float((QUERIES @ found.T >= last).sum() / (QUERIES @ unseen.T >= last).sum())
    assert as_often == pytest.approx(1.0, abs=0.2)


def test_new_items_of_the_index_are_where_they_were_before_it_held_them() -> None:
    towers = mean_towers(of(VECTORS))
    vectors = fit_cold(towers.items, CONTENTS, QUERIES, seed=1)
    new = np.arange(M) == 7

    found = with_cold(towers, vectors, CONTENTS, new)

    assert found.items.vectors[7].tolist() == vectors.of(CONTENTS[7])[0].tolist()
    assert found.items.vectors[~new].tolist() == VECTORS[~new].tolist()
    assert found.graph == towers.graph


def test_categories_outside_of_the_most_liked_items_have_their_means_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cold, "ITEMS_MAX", 100)
    likes = np.arange(M, 0, -1)
    contents = [*CONTENTS[:200], *(Content("late") for _ in range(100))]

    vectors = fit_cold(of(VECTORS, likes), contents, QUERIES, seed=1)

    late, rest = vectors.by_category["late"], vectors.rest
    stretch = rest @ rest / (VECTORS.mean(axis=0) @ rest)
    np.testing.assert_allclose(late, stretch * VECTORS[200:].mean(axis=0), rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 12))
def test_the_solver_finds_what_the_normal_equations_say(seed: int, n: int, t: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, t)) * (rng.random((n, t)) < 0.4)
    wanted, penalty = rng.normal(size=(n, 3)), rng.uniform(0.01, 50, t)

    found = ridge(csr_matrix(table), wanted, penalty)

    expected = np.linalg.solve(table.T @ table + np.diag(penalty), table.T @ wanted)
    np.testing.assert_allclose(found, expected, atol=1e-5 * (1 + np.abs(expected).max()))


def test_only_the_most_frequent_terms_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vocabulary_of(CONTENTS)
    # 10 parts of the year; three tags, three words and two categories, of which c0 and c1 are
    # the most frequent.
    monkeypatch.setattr(cold, "TERMS_MAX", 12)

    few = vocabulary_of(CONTENTS)

    assert len(whole.terms) == 10 + 3 + 3 + 2
    assert id64("word:number7") not in whole.terms  # of one item alone
    assert set(few.terms.tolist()) == set(whole.terms.tolist()) - {
        id64(f"{kind}:{name}") for kind, names in (("tag", TAGS), ("word", WORDS)) for name in names
    }
    assert (
        few.edges["year"].tolist()
        == np.quantile(np.arange(1900, 2000), np.arange(1, 10) / 10).tolist()
    )
