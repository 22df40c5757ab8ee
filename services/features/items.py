"""Stage 2: fold `feature-updates` and `items` into item and category rows.

SIGNATURES PUBLISHED FIRST; the bodies follow within minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Changed:
    """Keys whose rows one record changed."""

    items: set[str] = field(default_factory=set)
    categories: set[str] = field(default_factory=set)
    duplicate: bool = False  # the record was folded before


class ItemPartition:
    def __init__(self, partition: int) -> None: ...

    @property
    def offset(self) -> int:
        """Offset of the last record of `feature-updates` folded; -1: none."""

    @property
    def items_offset(self) -> int:
        """Offset of the last record of `items` folded; -1: none."""

    def fold_updates(self, record: bytes, *, offset: int) -> Changed:
        """Raises: InvalidBatch if it is not a FeatureUpdates record (nothing folded, offset noted)."""

    def fold_item(self, record: bytes, *, offset: int) -> Changed:
        """Raises: InvalidEvent if the item breaks the contract (nothing folded, offset noted)."""

    def item_rows(self, item_ids: Iterable[str]) -> list[tuple[str, bytes]]: ...

    def category_rows(self, categories: Iterable[str]) -> list[tuple[str, bytes]]: ...

    def dump(self) -> bytes: ...

    def load(self, dump: bytes) -> None: ...

    def sizes(self) -> dict[str, int]: ...
