"""Which items a request is about."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, ValidationError, model_validator

from rankstream.contracts.base import Category, Contract, Id
from rankstream.errors import InvalidRequest
from rankstream.pb import filter_pb2 as pb

CATEGORIES_MAX: Final = 100
ITEM_IDS_MAX: Final = 1_000
RADIUS_KM_MAX: Final = 20_100.0  # half of the way around the earth

Bound = Annotated[float | None, Field(description="Included; absent: no bound.")]


class PriceRange(Contract):
    """Prices between two bounds, both included; an item without a price does not pass."""

    min: Bound = None
    max: Bound = None

    @model_validator(mode="after")
    def _ascending(self) -> PriceRange:
        if self.min is None and self.max is None:
            raise ValueError("a price range needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Place(Contract):
    """Where somebody is."""

    latitude: float = Field(ge=-90, le=90, description="Degrees, north is positive.")
    longitude: float = Field(ge=-180, le=180, description="Degrees, east is positive.")


class GeoRadius(Place):
    """Places within a distance; an item without a latitude and longitude does not pass."""

    radius_km: float = Field(gt=0, le=RADIUS_KM_MAX, description="Along the great circle.")


class ItemFilter(Contract):
    """Items that pass all that is given; a filter of nothing lets every item pass."""

    categories: list[Category] = Field(
        default=[], max_length=CATEGORIES_MAX, description="Any of them."
    )
    price: PriceRange | None = None
    near: GeoRadius | None = None
    item_ids: list[Id] = Field(
        default=[], max_length=ITEM_IDS_MAX, description="None but these, if any are given."
    )

    @property
    def is_empty(self) -> bool:
        """Whether every item passes."""
        return not (self.categories or self.price or self.near or self.item_ids)


def filter_fields(message: pb.ItemFilter) -> dict[str, Any]:
    """The fields of an ItemFilter that a message gives, not yet checked."""
    fields: dict[str, Any] = {
        "categories": list(message.categories),
        "item_ids": list(message.item_ids),
    }
    if message.HasField("price"):
        price = message.price
        fields["price"] = {
            name: getattr(price, name) for name in ("min", "max") if price.HasField(name)
        }
    if message.HasField("near"):
        near = message.near
        fields["near"] = place_fields(near) | {"radius_km": near.radius_km}
    return fields


def place_fields(message: pb.Place | pb.GeoRadius) -> dict[str, Any]:
    """The fields of a Place that a message gives, not yet checked."""
    return {"latitude": message.latitude, "longitude": message.longitude}


def decode_filter(message: pb.ItemFilter) -> ItemFilter:
    """Raises: InvalidRequest naming the field."""
    return _decoded(ItemFilter, "filter", filter_fields(message))


def decode_place(message: pb.Place) -> Place:
    """Raises: InvalidRequest naming the field."""
    return _decoded(Place, "place", place_fields(message))


C = TypeVar("C", bound=Contract)


def _decoded(cls: type[C], name: str, fields: dict[str, Any]) -> C:
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise InvalidRequest(
            f"invalid_request: {where}: {first['msg']}, got {str(first['input'])[:80]!r}."
            " Nothing was retrieved. Mend the field."
        ) from None


def encode_filter(wanted: ItemFilter) -> pb.ItemFilter:
    """The message of a filter."""
    message = pb.ItemFilter(categories=wanted.categories, item_ids=wanted.item_ids)
    if wanted.price is not None:
        message.price.CopyFrom(pb.PriceRange(min=wanted.price.min, max=wanted.price.max))
    if wanted.near is not None:
        near = wanted.near
        message.near.CopyFrom(
            pb.GeoRadius(latitude=near.latitude, longitude=near.longitude, radius_km=near.radius_km)
        )
    return message


def encode_place(place: Place) -> pb.Place:
    """The message of a place."""
    return pb.Place(latitude=place.latitude, longitude=place.longitude)
