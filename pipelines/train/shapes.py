"""How large networks are, and what their heads are of; imports no JAX, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CLICK: Final = "click"
PURCHASE: Final = "purchase"


class Size(StrEnum):
    """How large a network is."""

    SMALL = "small"  # some 100,000 parameters
    FULL = "full"  # about 10 million


@dataclass(frozen=True)
class Shape:
    """Widths of layers, from the first to the last before the output."""

    pieces: int  # of each feature
    deep: tuple[int, ...]
    experts: int
    expert: tuple[int, ...]
    tower: tuple[int, ...]


SHAPES: Final[Mapping[Size, Shape]] = {
    Size.SMALL: Shape(8, deep=(128, 64), experts=4, expert=(56, 32), tower=(32,)),
    Size.FULL: Shape(12, deep=(2_560, 2_048, 1_024), experts=8, expert=(1_024, 256), tower=(64,)),
}
