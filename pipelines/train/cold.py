"""Vectors for items to come, learned from the items that have some: by category and by content.

By content: ridge regression from an item's tags, category, tenths of its numbers and words to its
vector, whatever family made that. How strong the penalty is, and whether content foretells vectors
better than categories do, is measured on items that are held out. Predictions are shorter than what
they predict, and short vectors are found by nobody; so they are stretched until the items held out
are found as often by their predictions as by their own vectors.

Source: Gantner et al., "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations",
ICDM 2010.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from pipelines.train.retrieval import ItemVectors, Towers
from rankstream.adapters.cold_vectors import ColdVectors, ContentVectors, Vocabulary, word_share
from rankstream.contracts.content import Content, category_term, number_term

ITEMS_MAX: Final = 20_000  # whose content teaches: the most liked
TERMS_MAX: Final = 20_000  # the most frequent
NUMBERS_MAX: Final = 32  # names, the most frequent
ITEMS_OF_TERM_MIN: Final = 2
PARTS: Final = 10  # of a number
FOLDS: Final = 5
FOLD_ITEMS_MIN: Final = 10
PENALTIES: Final = (1.0, 10.0, 100.0)
WORD_PENALTY: Final = 10.0  # times that of a fact: most words say nothing
DEPTH: Final = 500  # how far down an item counts as found
_STRETCHES: Final = np.linspace(0.5, 3.0, 51)
_BASE_PENALTY: Final = 1e-3
_STEPS_MAX: Final = 200
_EXACT: Final = 1e-6

Floats = npt.NDArray[np.float64]
Queries = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
# (numbers of the items learned from) -> vectors of all items, shape (n, dim)
_Foretell = Callable[[Rows], Floats]


@dataclass(frozen=True, eq=False)
class _Known:
    """n items with vectors, float64, shape (n, dim), their content, and their fold, shape (n,)."""

    vectors: Floats
    content: Sequence[Content]
    fold: Rows

    def held_out(self, foretell: _Foretell) -> Floats:
        """Of each item, the vector foretold from the other folds."""
        found = np.empty_like(self.vectors)
        for fold in range(FOLDS):
            mine = self.fold == fold
            found[mine] = foretell(np.flatnonzero(~mine))[mine]
        return found

    def missed(self, foretold: Floats) -> float:
        """Sum of squared errors."""
        return float(np.square(self.vectors - foretold).sum())


def fit_cold(
    items: ItemVectors, contents: Sequence[Content], queries: Queries, *, seed: int
) -> ColdVectors:
    """Vectors of new items.

    Args:
        contents: of each item. Only items that somebody liked teach.
        queries: shape (q, dim), that new items are to be found by; without any nothing is
            stretched.
        seed: of the folds.
    """
    liked = np.flatnonzero(items.popularity > 0)
    if not len(liked):
        liked = np.arange(len(items.item_id))
    names = np.array([contents[row].category for row in liked.tolist()], np.str_)
    means = _means(items.vectors[liked].astype(np.float64), names)
    if len(liked) < FOLDS * FOLD_ITEMS_MIN:
        return _by_category(means, 1.0)
    most = np.sort(np.argsort(-items.popularity[liked], kind="stable")[:ITEMS_MAX])
    known = _Known(
        items.vectors[liked[most]].astype(np.float64),
        [contents[row] for row in liked[most].tolist()],
        np.random.default_rng(seed).permutation(len(most)) % FOLDS,
    )
    held = known.held_out(partial(_of_category, known, names[most]))
    cold = _by_category(means, _stretch(held, known, queries))
    vocabulary = vocabulary_of(known.content)
    if not len(vocabulary.terms):
        return cold
    table, penalty = _table(vocabulary, known.content)
    found = [
        known.held_out(partial(_of_content, known, table, strength * penalty))
        for strength in PENALTIES
    ]
    best = int(np.argmin([known.missed(foretold) for foretold in found]))
    if known.missed(found[best]) >= known.missed(held):
        return cold
    weights = ridge(table, known.vectors, PENALTIES[best] * penalty)
    weights *= _stretch(found[best], known, queries)
    base, of_terms = weights[-1].astype(np.float32), weights[:-1].astype(np.float32)
    return ColdVectors(cold.by_category, cold.rest, ContentVectors(base, vocabulary, of_terms))


def with_cold(
    towers: Towers, cold: ColdVectors, contents: Sequence[Content], new: npt.NDArray[np.bool_]
) -> Towers:
    """Towers whose index has new items where it would have them as long as it lacked them.

    Args:
        contents: of each item. new: shape (m,), items of which nothing was learned.
    """
    vectors = towers.items.vectors.copy()
    for row in np.flatnonzero(new).tolist():
        vectors[row] = cold.of(contents[row])[0]
    return replace(towers, items=replace(towers.items, vectors=vectors))


def _means(vectors: Floats, names: npt.NDArray[np.str_]) -> tuple[dict[str, Floats], Floats]:
    """The mean vector of each category, and of all items; "" is no category."""
    named, code = np.unique(names, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(named)))
    mean = np.add.reduceat(vectors[order], starts) / np.bincount(code)[:, None]
    of_names = dict(zip(map(str, named.tolist()), mean, strict=True))
    of_names.pop("", None)
    return of_names, vectors.mean(axis=0)


def _of_category(known: _Known, names: npt.NDArray[np.str_], rows: Rows) -> Floats:
    means, rest = _means(known.vectors[rows], names[rows])
    return np.array([means.get(content.category, rest) for content in known.content])


def _by_category(means: tuple[dict[str, Floats], Floats], stretch: float) -> ColdVectors:
    stretched = {name: (stretch * mean).astype(np.float32) for name, mean in means[0].items()}
    return ColdVectors(stretched, (stretch * means[1]).astype(np.float32))


def vocabulary_of(contents: Iterable[Content]) -> Vocabulary:
    """The most frequent terms of items, and where their numbers are cut into tenths."""
    numbers: dict[str, list[float]] = {}
    times: Counter[int] = Counter()
    for content in contents:
        times.update([category_term(content.category)] if content.category else [])
        times.update(content.tags.tolist())
        times.update(content.words.tolist())
        for name, number in content.numbers.items():
            numbers.setdefault(name, []).append(number)
    often = sorted(numbers, key=lambda name: (-len(numbers[name]), name))[:NUMBERS_MAX]
    inner = np.arange(1, PARTS) / PARTS
    edges = {name: np.unique(np.quantile(numbers[name], inner)) for name in often}
    parts = [number_term(name, part) for name in often for part in range(len(edges[name]) + 1)]
    enough = sorted((-n, term) for term, n in times.items() if n >= ITEMS_OF_TERM_MIN)
    terms = [term for _, term in enough[: TERMS_MAX - len(parts)]]
    return Vocabulary(np.unique(np.array([*parts, *terms], np.uint64)), edges)


def _table(vocabulary: Vocabulary, contents: Sequence[Content]) -> tuple[csr_matrix, Floats]:
    """What each item has of each term, a column of ones last; penalties of the columns."""
    place: list[Rows] = []
    share: list[Floats] = []
    width = len(vocabulary.terms)
    penalty = np.ones(width + 1)
    penalty[-1] = _BASE_PENALTY
    for content in contents:
        words = vocabulary.words(content)
        told = np.concatenate([vocabulary.category(content), vocabulary.facts(content)])
        penalty[words] = WORD_PENALTY
        place.append(np.concatenate([told, words, [width]]))
        share.append(np.ones(len(place[-1])))
        share[-1][len(told) : -1] = word_share(len(words))
    ends = np.cumsum([0, *map(len, place)])
    shape = (len(contents), width + 1)
    return csr_matrix((np.concatenate(share), np.concatenate(place), ends), shape), penalty


def _of_content(known: _Known, table: csr_matrix, penalty: Floats, rows: Rows) -> Floats:
    foretold: Floats = table @ ridge(table[rows], known.vectors[rows], penalty)
    return foretold


def ridge(table: csr_matrix, wanted: Floats, penalty: Floats) -> Floats:
    """Weights that give the least sum of squared errors and penalised squared weights.

    By conjugate gradients, scaled by the diagonal, all columns at once.

    Args:
        table: shape (n, t). wanted: shape (n, d). penalty: shape (t,), positive.

    Returns: shape (t, d).
    """
    scale = 1.0 / (np.asarray(table.multiply(table).sum(axis=0)).ravel() + penalty)
    weights = np.zeros((table.shape[1], wanted.shape[1]))
    rest = table.T @ wanted
    towards = scaled = scale[:, None] * rest
    energy = np.sum(rest * scaled, axis=0)
    enough = _EXACT**2 * energy
    for _ in range(_STEPS_MAX):
        if (energy <= enough).all():
            break
        bent = table.T @ (table @ towards) + penalty[:, None] * towards
        # A column that is solved stays: it moves by nothing.
        step = np.where(energy > enough, energy / np.sum(towards * bent, axis=0), 0.0)
        weights += step * towards
        rest = rest - step * bent
        scaled = scale[:, None] * rest
        before, energy = energy, np.sum(rest * scaled, axis=0)
        towards = scaled + energy / np.maximum(before, np.finfo(float).tiny) * towards
    return weights


def _stretch(foretold: Floats, known: _Known, queries: Queries) -> float:
    """What to stretch predictions by, so that they are found as often as the items' own vectors."""
    if not len(queries):
        return 1.0
    depth = max(1, min(DEPTH, len(foretold) // 4))
    own = queries @ known.vectors.T
    last = -np.partition(-own, depth - 1, axis=1)[:, depth - 1 : depth]
    scores = queries @ foretold.T
    often = [float((stretch * scores >= last).sum()) for stretch in _STRETCHES]
    return float(_STRETCHES[int(np.argmin(np.abs(np.array(often) - depth * len(queries))))])
