"""Events: what happened, to whom, when. One pydantic model per kind, for JSON and for clients.

The stream itself never makes these objects: see `EventColumns` in codec.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import Field, TypeAdapter, field_validator

from rankstream.contracts.base import (
    DEGREES_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    QUERY_CHARACTERS_MAX,
    TAG_CHARACTERS_MAX,
    TAGS_MAX,
    TITLE_CHARACTERS_MAX,
    Category,
    Contract,
    Id,
)

ATTRIBUTES_MAX = 64

Attributes = Annotated[dict[Id, str | float], Field(max_length=ATTRIBUTES_MAX)]
Tag = Annotated[str, Field(min_length=1, max_length=TAG_CHARACTERS_MAX)]


class EventBase(Contract):
    """Fields of every event. Time is event time: UTC epoch in ms, when it happened."""

    event_id: str
    user_id: Id
    event_time_ms: int = Field(gt=0, lt=1 << 62)
    session_id: str = Field(default="", max_length=256)
    device: str = Field(default="", max_length=256)
    query: str = Field(default="", max_length=QUERY_CHARACTERS_MAX)
    location: str = Field(default="", max_length=256)

    @field_validator("event_id")
    @classmethod
    def _is_uuid(cls, value: str) -> str:
        try:
            return str(UUID(value))
        except ValueError:
            raise ValueError(f"event_id {value[:64]!r} is not a UUID (UUIDv7 advised)") from None


class ItemEventBase(EventBase):
    """Fields of events about an item."""

    item_id: Id
    category: Category = ""


class FeedbackBase(ItemEventBase):
    """Feedback on a slate names the request that made it."""

    request_id: Id


class Impression(FeedbackBase):
    """A served item was confirmed on screen: the denominator of CTR."""

    kind: Literal["impression"] = "impression"
    position: int = Field(ge=0, lt=10_000)


class Click(FeedbackBase):
    """An action on an impression; repeats collapse to the first."""

    kind: Literal["click"] = "click"


class Purchase(ItemEventBase):
    """A conversion; without a request_id it counts for the item but for no slate."""

    kind: Literal["purchase"] = "purchase"
    request_id: str = Field(default="", max_length=256)
    value: float = Field(ge=0, le=1e9)
    currency: str = Field(default="", max_length=3)


class View(ItemEventBase):
    """A detail page was viewed, whatever led there; value is dwell in ms when known."""

    kind: Literal["view"] = "view"
    request_id: str = Field(default="", max_length=256)
    value: float = Field(default=0.0, ge=0, le=1e9)


class Rate(ItemEventBase):
    """An explicit rating."""

    kind: Literal["rate"] = "rate"
    value: float = Field(ge=-1e6, le=1e6)


class Visit(EventBase):
    """The user came to the site or the app."""

    kind: Literal["visit"] = "visit"


class UserUpdate(EventBase):
    """What is known of a user now: later values replace earlier ones, name by name."""

    kind: Literal["user_update"] = "user_update"
    attributes: Attributes


class ContextUpdate(EventBase):
    """Weather, local events, traffic around the user; of each name the newest holds for a while."""

    kind: Literal["context"] = "context"
    attributes: Attributes


Event: TypeAlias = Annotated[
    Impression | Click | Purchase | View | Rate | Visit | UserUpdate | ContextUpdate,
    Field(discriminator="kind"),
]


class ItemUpdate(Contract):
    """What is known of an item now; the last update wins."""

    kind: Literal["item_update"] = "item_update"
    item_id: Id
    category: Category = ""
    title: str = Field(default="", max_length=TITLE_CHARACTERS_MAX)
    description: str = Field(default="", max_length=DESCRIPTION_CHARACTERS_MAX)
    tags: tuple[Tag, ...] = Field(default=(), max_length=TAGS_MAX)
    withdrawn: bool = False
    updated_ms: int = Field(gt=0, lt=1 << 62)
    attributes: dict[Id, float] = Field(default_factory=dict, max_length=ATTRIBUTES_MAX)

    @field_validator("attributes")
    @classmethod
    def _on_earth(cls, attributes: dict[str, float]) -> dict[str, float]:
        for name, most in DEGREES_MAX.items():
            if abs(attributes.get(name, 0.0)) > most:
                raise ValueError(f"{name} is {attributes[name]:g} (limit ±{most:g} degrees)")
        return attributes


# What a producer may send over HTTP: feedback goes to `events`, items to `items`.
Message: TypeAlias = Annotated[
    Impression | Click | Purchase | View | Rate | Visit | UserUpdate | ContextUpdate | ItemUpdate,
    Field(discriminator="kind"),
]

MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
