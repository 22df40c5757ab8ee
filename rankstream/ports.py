"""What the shells need from outside: each port has a real adapter and a fake in `testing`."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rankstream.contracts.manifest import Utility
from rankstream.contracts.subset import Subset

Rows = npt.NDArray[np.void]


class FeatureStore(Protocol):
    """Packed feature rows by id. An unknown id has the empty row (`features.rows.empty_rows`).

    Every method raises DependencyUnavailable if the store cannot answer in time.
    """

    async def user(self, user_id: str) -> Rows:
        """USER_ROW, shape (1,)."""
        ...

    async def items(self, item_ids: Sequence[str]) -> Rows:
        """ITEM_ROW, shape (n,), in order of the ids; an id may repeat."""
        ...

    async def categories(self, names: Sequence[str]) -> Rows:
        """CATEGORY_ROW, shape (n,), in order of the names; a name may repeat."""
        ...

    async def context(self, query: str, location: str) -> Rows:
        """CONTEXT_ROW, shape (1, 2): of the query and of the location; "" has the empty row."""
        ...

    async def user_and_items(self, user_id: str, item_ids: Sequence[str]) -> tuple[Rows, Rows]:
        """USER_ROW, shape (1,), and ITEM_ROW, shape (n,), in one round trip."""
        ...


class Index(Protocol):
    """Nearest items of one item table, whose rows are its ids."""

    @property
    def size(self) -> int:
        """Rows of the table."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a query."""
        ...

    def search(
        self,
        query: npt.NDArray[np.float32],
        k: int,
        excluded: npt.NDArray[np.int64],
        within: Subset | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Rows of largest inner product, best first, and their similarity, both shape (<= k,).

        Args:
            query: shape (dimensions,).
            k: 1 or more; fewer come back only if fewer rows are left.
            excluded: rows in [0, size) that must not come back, any order, repeats allowed.
            within: rows that may come back; None: all.
        """
        ...


class Scores(NamedTuple):
    """Of n rows, float32, shape (n,) each; `pctr` is the logit's probability of a click.

    `pcvr` is the probability of a purchase; None: the model was not trained on purchases.
    """

    logit: npt.NDArray[np.float32]
    pctr: npt.NDArray[np.float32]
    pcvr: npt.NDArray[np.float32] | None = None


class Model(Protocol):
    """A ranker: features in, logits and probabilities out."""

    @property
    def model_id(self) -> str:
        """Identity of the artefact."""
        ...

    @property
    def data_version(self) -> str:
        """The data that it was trained on."""
        ...

    @property
    def feature_means(self) -> npt.NDArray[np.float32]:
        """Baseline of explanations, shape (d,)."""
        ...

    @property
    def utility(self) -> Utility | None:
        """How candidates are ordered by pctr and pcvr; None: by logit."""
        ...

    @property
    def prerank(self) -> npt.NDArray[np.float64] | None:
        """Weights of columns `features.snapshot.PARTIAL` whose sum stands in for the model.

        Shape (len(PARTIAL),); None: the model has none.
        """
        ...

    def score(self, features: npt.NDArray[np.float32]) -> Scores:
        """Scores of each row, which depend on that row only.

        Args:
            features: shape (n, d), finite, order of features.spec.FEATURES.
        """
        ...


class EventLog(Protocol):
    """Appends records; an append ends when the log holds the record for good."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes = b"",
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Awaitable[tuple[int, int]]:
        """Append a record, by default to the partition of its key; its partition and offset.

        Raises:
            QueueFull: too many records wait; nothing was appended.
            TooLarge: the record is over the log's limit; nothing was appended.
            DependencyUnavailable: no ack in time; the record may have been appended.
        """
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises: DependencyUnavailable."""
        ...

    async def ping(self, timeout_s: float) -> None:
        """Return if the log answers in time. Raises: DependencyUnavailable."""
        ...

    async def flush_and_close(self) -> None:
        """Wait until every record sent is acked or has failed, then stop."""
        ...
