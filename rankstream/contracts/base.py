"""The base of every boundary type."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

ID_BYTES_MAX = 256
CATEGORY_BYTES_MAX = 64
QUERY_CHARACTERS_MAX = 1024
# Attributes of an item that mean its place, in degrees, and their largest absolute value.
DEGREES_MAX = {"latitude": 90.0, "longitude": 180.0}
# Text of an item, in characters, and how many tags it has.
TITLE_CHARACTERS_MAX = 1_024
DESCRIPTION_CHARACTERS_MAX = 4_096
TAG_CHARACTERS_MAX = 64
TAGS_MAX = 64

# Ids are opaque text; ids longer than this are refused, not cut.
Id = Annotated[str, Field(min_length=1, max_length=ID_BYTES_MAX)]


def _fits(category: str) -> str:
    size = len(category.encode())
    if size > CATEGORY_BYTES_MAX:
        raise ValueError(f"category of {size} bytes (limit {CATEGORY_BYTES_MAX})")
    return category


# "" is no category. It is held in a fixed-width column, hence the limit in bytes.
Category = Annotated[str, AfterValidator(_fits)]


class Contract(BaseModel):
    """Parsed once at the edge; past it nobody checks again."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
