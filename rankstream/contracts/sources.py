"""Where candidates come from, how many from where, and what fills a list that is short.

One validated configuration for all sources. Without one, an artefact's own sources are merged as
they were tuned, and popular items fill the list of a user of whom nothing is known.
"""

from __future__ import annotations

import math
from typing import Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from rankstream.contracts.base import Contract
from rankstream.errors import InvalidSettings

TOWERS: Final = "towers"
COMPANY: Final = "company"
SUCCESSORS: Final = "successors"
POPULAR: Final = "popular"
FRESH: Final = "fresh"
TRENDING: Final = "trending"
NEAR: Final = "near"

Name = Literal["towers", "company", "successors", "popular", "fresh", "trending", "near"]
# Bit i of a candidate's `named_by` is NAMES[i].
NAMES: Final[tuple[Name, ...]] = (
    "towers",
    "company",
    "successors",
    "popular",
    "fresh",
    "trending",
    "near",
)
# What no artefact weighs.
_UNWEIGHED: Final = frozenset({POPULAR, TRENDING, NEAR})
BIT: Final[dict[str, int]] = {name: 1 << place for place, name in enumerate(NAMES)}


class Source(Contract):
    """One source: what its scores weigh, and its quota of the k candidates of an answer.

    towers: items near the user's vector. company, successors: lists of the last actions' items.
    popular: most liked when the index was built. fresh: items that the index lacks, by the vector
    of their category; they are scored as those of the towers. trending: most clicked lately.
    near: nearest to where the user is, within `near_km`; nobody if that is unknown.
    """

    name: Name
    weight: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="Of its scores in the sum; absent: as the artefact was tuned, and 0 of a"
        " source that it does not weigh, which only fills its quota then.",
    )
    min_share: float = Field(
        default=0.0, ge=0, le=1, description="So much of k at least is its own best, if it has it."
    )
    max_share: float = Field(default=1.0, gt=0, le=1, description="It names so much of k at most.")
    floor: float | None = Field(
        default=None,
        description="It is dropped if its best score is below: similarity of towers and fresh,"
        " summed weights of lists, likes of popular, clicks of trending,"
        " closeness of near (1 at the place, 0 at near_km).",
    )

    def slots(self, k: int) -> tuple[int, int | None]:
        """How many of k it names at least, if it has them, and at most; None: any number."""
        most = None if self.max_share == 1 else math.ceil(self.max_share * k - 1e-9)
        return math.floor(self.min_share * k + 1e-9), most


class Sources(Contract):
    """All sources of an answer, each once; those that are left out are not asked.

    fallbacks: fill what is missing to k, one after the other. Shares that are kept for sources add
    up to 1 at most, so no quota is ever in the way of another.
    """

    sources: tuple[Source, ...]
    fallbacks: tuple[Literal["popular", "fresh", "trending", "near"], ...] = (POPULAR, FRESH)
    trending_hours: float = Field(default=24.0, ge=0.1, le=720, description="Their window.")
    near_km: float = Field(default=5.0, gt=0, le=500, description="No farther, as the crow flies.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        named = [source.name for source in self.sources]
        for names in (named, self.fallbacks):
            if len(set(names)) < len(names):
                raise ValueError(f"names one twice: {', '.join(names)}")
        if sum(source.min_share for source in self.sources) > 1 + 1e-9:
            raise ValueError("min_share adds up to more than 1")
        for source in self.sources:
            if source.min_share > source.max_share:
                raise ValueError(f"{source.name}: min_share is above max_share")
            if source.name == FRESH and source.weight is not None:
                raise ValueError("fresh: is weighed as towers are; give those a weight")
            if source.name in _UNWEIGHED and not (source.weight or source.min_share):
                raise ValueError(f"{source.name}: names nobody without a weight or a min_share")
        if FRESH in named and TOWERS not in named:
            raise ValueError("fresh: is scored by towers, which are not among the sources")
        return self

    def asks(self, name: Name) -> bool:
        """Whether a name is a source or a fallback."""
        return self.of(name) is not None or name in self.fallbacks

    def of(self, name: str) -> Source | None:
        """The source of a name; None: it is not asked."""
        return next((source for source in self.sources if source.name == name), None)


AS_TUNED: Final = Sources(
    sources=tuple(Source(name=name) for name in (TOWERS, COMPANY, SUCCESSORS, FRESH))
)


def decode_sources(text: bytes, origin: str) -> Sources:
    """Sources from a JSON object.

    Raises: InvalidSettings naming the first thing that is wrong.
    """
    try:
        return Sources.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(
            f"invalid_settings: {origin}: {where}: {first['msg']}. Not started. Mend the sources."
        ) from None
