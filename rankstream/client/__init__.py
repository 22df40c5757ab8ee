"""The typed client: send events, ask for rankings, read scorecards, explain past answers.

    with Client() as client:
        client.send([event])
        ranking = client.recommend("user-1", n=10)

Synchronous, safe to share between threads. Every refusal is an error of `rankstream.errors`.
`LogProducer` appends events straight to Kafka; docs/producing.md says how other languages do.
"""

from rankstream.client.client import (
    EXPERIMENTS_URL,
    INGEST_URL,
    RANKER_ADMIN_TARGET,
    RANKER_TARGET,
    Client,
)
from rankstream.client.log import LogProducer
from rankstream.client.replies import (
    Contribution,
    Difference,
    ExplainedItem,
    Explanation,
    PolicyStep,
    RankedItem,
    Ranking,
    Rejection,
    Reproduction,
    SendResult,
)

__all__ = [
    "EXPERIMENTS_URL",
    "INGEST_URL",
    "RANKER_ADMIN_TARGET",
    "RANKER_TARGET",
    "Client",
    "Contribution",
    "Difference",
    "ExplainedItem",
    "Explanation",
    "LogProducer",
    "PolicyStep",
    "RankedItem",
    "Ranking",
    "Rejection",
    "Reproduction",
    "SendResult",
]
