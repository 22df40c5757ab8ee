"""What happens to scored candidates before they are shown: one validated configuration.

A preference is what candidates are ordered by, higher first: a logit, or the utility of a
manifest. Amounts and weights below are in units of it. Without any of the optional steps a policy
is epsilon-greedy over the preferences.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from rankstream.contracts.base import Category, Contract, Id
from rankstream.errors import InvalidSettings

SLOTS_MAX = 1_000
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Slots = Annotated[int, Field(ge=1, le=SLOTS_MAX)]
Amount = Annotated[float, Field(gt=0, le=1e6)]


class Match(Contract):
    """Candidates for which all that is stated holds; at least one thing must be.

    `attribute` names an attribute of items in [at_least, below); an unknown one matches nothing.
    `impressions_below`: shown less often than that, over all users and ever: a new item.
    """

    categories: tuple[Category, ...] = ()
    item_ids: tuple[Id, ...] = ()
    attribute: str = ""
    at_least: float | None = None
    below: float | None = None
    impressions_below: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranged = self.at_least is not None or self.below is not None
        if bool(self.attribute) != ranged:
            raise ValueError("an attribute needs at_least or below, and those an attribute")
        if not (self.categories or self.item_ids or self.attribute or self.impressions_below):
            raise ValueError("matches everything: state categories, items, an attribute or both")
        return self


class Rule(Contract):
    """A business rule. boost adds `amount` to the preference, bury takes it off, exclude removes
    the candidate.
    """

    action: Literal["boost", "bury", "exclude"]
    match: Match
    amount: Amount = 1.0


class Pin(Contract):
    """The best candidate that matches goes to `slot` (0: the top), if there is one."""

    slot: int = Field(ge=0, lt=SLOTS_MAX)
    match: Match


class Freshness(Contract):
    """Adds weight x 2^(-age / half-life); nothing to items of unknown age.

    `attribute` says when an item came out: as a year, or in seconds since 1970.
    """

    attribute: str = Field(min_length=1)
    unit: Literal["year", "epoch_s"]
    half_life_days: float = Field(gt=0)
    weight: Amount


class Diversity(Contract):
    """Each slot takes the candidate of the largest

        trade_off x preference + (1 - trade_off) x novelty.

    Novelty is minus the similarity to the most similar item above (mmr; Carbonell and Goldstein,
    "The Use of MMR", SIGIR 1998), or the logarithm of what the item adds to the determinant of
    the similarities (dpp; Chen, Zhang and Zhou, "Fast Greedy MAP Inference for Determinantal
    Point Process", NeurIPS 2018). Two items are similar by `category` if theirs is the same, and
    by exp(-|a - b| / scale) of each attribute named; the weights sum to at most 1. The `depth` most
    preferred candidates compete.
    """

    method: Literal["mmr", "dpp"]
    trade_off: float = Field(gt=0, le=1)
    category: float = Field(default=1.0, ge=0, le=1)
    attributes: tuple[Likeness, ...] = ()
    depth: int = Field(default=100, ge=1, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = self.category + sum(likeness.weight for likeness in self.attributes)
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(f"weights of similarity sum to {total:g}, must be in (0, 1]")
        return self


class Likeness(Contract):
    """How much a numeric attribute counts for similarity, and over what distance it fades."""

    attribute: str = Field(min_length=1)
    weight: float = Field(gt=0, le=1)
    scale: float = Field(gt=0)


class Floor(Contract):
    """At least `slots` slots for candidates that match, as far as there are so many."""

    slots: Slots
    match: Match


class Thompson(Contract):
    """Thompson sampling of the click rate of cold items: those shown less than
    `impressions_below` times, the `candidates_max` most preferred of them.

    Prior: Beta with the smoothed click rate of the item's category as mean and `strength`
    pseudo-impressions; posterior: with the item's own clicks. The rate is drawn anew for each
    slot, so that P(item | slots above) is a product of slots; it takes the place of the model's
    click probability. Source: Chapelle and Li, "An Empirical Evaluation of Thompson Sampling",
    NIPS 2011.
    `draws` are those of the simulation of propensities.
    """

    impressions_below: int = Field(default=50, ge=1)
    strength: float = Field(default=10.0, gt=0)
    candidates_max: int = Field(default=32, ge=1, le=256)
    draws: int = Field(default=400, ge=50, le=100_000)


class Policy(Contract):
    """The steps between scores and slate, in the order in which they are taken.

    rules, freshness: change preferences or remove candidates. dedupe: of candidates that are equal
    in it, the most preferred stays: "item", or an attribute such as a series. Then slots are
    filled from the top: pins; floors; caps (slots per category: `caps` by name, `cap` for all
    others, 0: none); thompson and diversity decide which candidate is best; with probability
    `epsilon` the slot is instead explored: any candidate that caps and floors allow.
    """

    rules: tuple[Rule, ...] = ()
    freshness: Freshness | None = None
    dedupe: str = ""
    pins: tuple[Pin, ...] = ()
    floors: tuple[Floor, ...] = ()
    cap: int = Field(default=0, ge=0, le=SLOTS_MAX)
    caps: dict[Category, Slots] = Field(default_factory=dict)
    thompson: Thompson | None = None
    diversity: Diversity | None = None
    epsilon: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        slots = [pin.slot for pin in self.pins]
        if len(set(slots)) < len(slots):
            raise ValueError("two pins for one slot")
        return self

    def _matches(self) -> list[Match]:
        matching: tuple[Rule | Pin | Floor, ...] = (*self.rules, *self.pins, *self.floors)
        return [each.match for each in matching]

    @cached_property
    def is_plain(self) -> bool:
        """Whether it is epsilon-greedy over the model's order and nothing else."""
        return self == Policy(epsilon=self.epsilon)

    @cached_property
    def settled(self) -> Policy:
        """The same without what is drawn: no exploration and no Thompson sampling."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Policy(**{**fields, "epsilon": 0.0, "thompson": None})

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """The item attributes that it reads, each once, sorted."""
        names = {match.attribute for match in self._matches()}
        names.update((self.dedupe, self.freshness.attribute if self.freshness else ""))
        if self.diversity:
            names.update(likeness.attribute for likeness in self.diversity.attributes)
        return tuple(sorted(names - {"", "item"}))

    @cached_property
    def names_items(self) -> bool:
        """Whether it looks at ids of items."""
        return self.dedupe == "item" or any(match.item_ids for match in self._matches())

    @cached_property
    def counts(self) -> bool:
        """Whether it reads how often items were shown and clicked."""
        new = any(match.impressions_below for match in self._matches())
        return new or self.thompson is not None

    @cached_property
    def sha256(self) -> str:
        """The first 16 hex digits of the hash of the configuration, defaults included."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_POLICIES: TypeAdapter[dict[str, Policy]] = TypeAdapter(dict[Name, Policy])


def decode_policies(text: bytes, source: str) -> dict[str, Policy]:
    """Policies by name, from a JSON object.

    Raises: InvalidSettings naming the first thing that is wrong.
    """
    try:
        return _POLICIES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(
            f"invalid_settings: {source}: {where}: {first['msg']}. Not started. Mend the policy."
        ) from None
