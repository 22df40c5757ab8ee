"""What an item's content is made of: the terms that training and retrieval read alike.

Tags, words of title and description, and the category, each told by the 64-bit hash (`id64`) of its
kind and text, and numbers by name. Order and repeats do not matter, nor does case but a category's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rankstream.contracts.ids import id64

Terms = npt.NDArray[np.uint64]

NO_TERMS: Final = np.empty(0, np.uint64)
_WORD: Final = re.compile(r"\w+")


class Described(Protocol):
    """What says something of an item: a record of topic `items`, or facts in the lake."""

    @property
    def category(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def tags(self) -> Iterable[str]: ...
    @property
    def attributes(self) -> Mapping[str, float]: ...


class Content(NamedTuple):
    """What is known of an item; terms ascend, each once, shape (n,)."""

    category: str
    tags: Terms = NO_TERMS
    words: Terms = NO_TERMS
    numbers: Mapping[str, float] = {}


def content_of(item: Described) -> Content:
    """The content of an item."""
    words = words_of(f"{item.title} {item.description}")
    return Content(
        item.category,
        _hashed({f"tag:{_plain(tag)}" for tag in item.tags}),
        _hashed({f"word:{word}" for word in words}),
        dict(item.attributes),
    )


def category_term(name: str) -> int:
    """The term of a category."""
    return id64(f"category:{name}")


def number_term(name: str, part: int) -> int:
    """The term of a number by name that lies in one of the parts that training has cut."""
    return id64(f"number:{name}:{part}")


def words_of(text: str) -> set[str]:
    """The words of a text: runs of letters, digits and _, compatible forms and cases as one.

    >>> sorted(words_of("Toy STORY 2, a story"))
    ['2', 'a', 'story', 'toy']
    """
    return set(_WORD.findall(_plain(text)))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _hashed(terms: set[str]) -> Terms:
    return np.unique(np.fromiter(map(id64, terms), np.uint64, len(terms)))
