"""What stands in for the vector of an item that a retrieval artefact was built without."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.content import Content, Terms, category_term, number_term
from rankstream.errors import InvalidArtifact

NAME: Final = "cold.npz"

Floats = npt.NDArray[np.float32]
Edges = Mapping[str, npt.NDArray[np.float64]]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Terms that have a vector, ascending, shape (t,); where numbers are cut, by name."""

    terms: Terms
    edges: Edges

    def category(self, content: Content) -> Places:
        """Place of an item's category; of none if it is unknown."""
        return self._places(np.array([category_term(content.category)], np.uint64))

    def facts(self, content: Content) -> Places:
        """Places of the known tags and numbers of an item, ascending."""
        parts = [
            number_term(name, int(np.searchsorted(self.edges[name], number, "right")))
            for name, number in content.numbers.items()
            if name in self.edges
        ]
        return self._places(np.concatenate([content.tags, np.array(parts, np.uint64)]))

    def words(self, content: Content) -> Places:
        """Places of the known words of an item, ascending."""
        return self._places(content.words)

    def _places(self, terms: Terms) -> Places:
        if not len(self.terms):
            return np.empty(0, np.int64)
        found = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        return np.sort(found[self.terms[found] == terms])


@dataclass(frozen=True, eq=False)
class ContentVectors:
    """A linear map from content to vectors, float32.

    An item's vector is `base`, shape (dim,), plus those of its category, tags and numbers, plus
    those of its words divided by the root of how many are known: a long text weighs as much as a
    short one.
    """

    base: Floats
    vocabulary: Vocabulary
    vectors: Floats  # of each term, shape (t, dim)

    def of(self, content: Content) -> Floats | None:
        """The vector of an item; None if no more than its category is known of it."""
        known = self.vocabulary
        facts, words = known.facts(content), known.words(content)
        if not len(facts) and not len(words):
            return None
        told = np.concatenate([known.category(content), facts])
        share = np.float32(word_share(len(words)))
        of_words = self.vectors[words].sum(axis=0) * share
        vector: Floats = self.base + self.vectors[told].sum(axis=0) + of_words
        return vector


def word_share(words: int) -> float:
    """What each of so many known words of an item weighs."""
    return float(max(1, words) ** -0.5)


@dataclass(frozen=True)
class ColdVectors:
    """Vectors of new items, float32, shape (dim,).

    By content, if that foretells vectors better than categories do and anything of it is known;
    else by category, `rest` for any other.
    """

    by_category: dict[str, Floats]
    rest: Floats
    by_content: ContentVectors | None = None

    def of(self, content: Content) -> tuple[Floats, bool]:
        """The vector of a new item, and whether it is that of its content."""
        vector = None if self.by_content is None else self.by_content.of(content)
        if vector is None:
            return self.by_category.get(content.category, self.rest), False
        return vector, True


def no_vectors(dimensions: int) -> ColdVectors:
    """Those of an artefact that has none: new items are neither near nor far."""
    return ColdVectors({}, np.zeros(dimensions, np.float32))


def write_cold_vectors(path: Path, cold: ColdVectors) -> None:
    """Write the vectors where `read_cold_vectors` finds them."""
    names = list(cold.by_category)
    vectors = np.array([*cold.by_category.values(), cold.rest], np.float32)
    columns: dict[str, Any] = {"category": np.array(names, np.str_), "vectors": vectors}
    if cold.by_content is not None:
        content = cold.by_content
        edges = content.vocabulary.edges
        columns |= {
            "base": content.base,
            "term": content.vocabulary.terms,
            "term_vectors": content.vectors,
            "number": np.array(list(edges), np.str_),
            "cuts": np.array([len(cuts) for cuts in edges.values()], np.int64),
            "edges": np.concatenate([np.empty(0), *edges.values()]),
        }
    np.savez(path, **columns)


def read_cold_vectors(folder: Path, *, dimensions: int) -> ColdVectors:
    """The vectors of an artefact folder; an older one knows of no content.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of other dimensions.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            names = [str(name) for name in columns["category"].tolist()]
            vectors = columns["vectors"].astype(np.float32)
            content = _content(columns, path, dimensions) if "term" in columns else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of vectors: {error}") from None
    if vectors.shape != (len(names) + 1, dimensions) or not np.isfinite(vectors).all():
        raise _invalid(path, f"has {vectors.shape} vectors of {len(names)} categories and the rest")
    return ColdVectors(dict(zip(names, vectors, strict=False)), vectors[-1], content)


def _content(columns: Mapping[str, npt.NDArray[Any]], path: Path, d: int) -> ContentVectors:
    terms, base, vectors = columns["term"], columns["base"], columns["term_vectors"]
    names, cuts, edges = columns["number"], columns["cuts"], columns["edges"]
    fits = terms.dtype == np.uint64 and bool((terms[1:] > terms[:-1]).all())
    fits &= base.shape == (d,) and vectors.shape == (len(terms), d)
    fits &= cuts.shape == names.shape and int(cuts.sum()) == len(edges)
    if not fits or not all(np.isfinite(part).all() for part in (base, vectors, edges)):
        raise _invalid(path, f"has {vectors.shape} vectors of {terms.shape} terms")
    # One part more than there are names, behind the last of them: nothing.
    parts = np.split(edges.astype(np.float64), np.cumsum(cuts.astype(np.int64)))
    vocabulary = Vocabulary(
        terms.astype(np.uint64),
        {str(name): part for name, part in zip(names.tolist(), parts, strict=False)},
    )
    return ContentVectors(base.astype(np.float32), vocabulary, vectors.astype(np.float32))


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
