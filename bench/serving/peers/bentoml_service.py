"""BentoML and XGBoost; redis-py reads the rows in one pipeline. In the environment of peers.txt.

`bentoml serve bench.serving.peers.bentoml_service:Ranking`, with PEER_REDIS_URL and PEER_MODEL. The
rows and the arithmetic of the features are ours, as in `fastapi_feast`; without Feast's reader.
"""

from __future__ import annotations

import os
import time
from typing import Any

import bentoml
import numpy as np
import redis
import xgboost as xgb

from rankstream.adapters.redis_rows import CATEGORY_STATE, ITEM_STATE, USER_STATE, View, entity_key
from rankstream.features.rows import CONTEXT_ROW, Rows, empty_rows
from rankstream.features.snapshot import snapshot


@bentoml.service(workers=1)
class Ranking:
    """Orders items for a user."""

    def __init__(self) -> None:
        self._booster = xgb.Booster(model_file=os.environ["PEER_MODEL"])
        self._booster.set_param({"nthread": 1})
        self._store = redis.Redis.from_url(os.environ["PEER_REDIS_URL"])
        self._around = empty_rows(2, CONTEXT_ROW)[None]

    def _rows(self, *asked: tuple[View, list[str]]) -> list[Rows]:
        with self._store.pipeline(transaction=False) as typed:
            pipeline: Any = typed
            for view, ids in asked:
                for one in ids:
                    pipeline.execute_command("HGET", entity_key(view, one), view.field)
            found = pipeline.execute()
        rows = []
        for view, ids in asked:
            part, found = found[: len(ids)], found[len(ids) :]
            head = len(view.value_head)
            rows.append(np.frombuffer(b"".join(value[head:] for value in part), view.dtype))
        return rows

    @bentoml.api  # type: ignore[untyped-decorator]  # bentoml is in the peers' environment only
    def rank(self, user_id: str, item_ids: list[str], n: int) -> dict[str, list[str] | list[float]]:
        """The best n first, and their scores."""
        user, items = self._rows((USER_STATE, [user_id]), (ITEM_STATE, item_ids))
        names, which = np.unique(items["category"], return_inverse=True)
        (categories,) = self._rows((CATEGORY_STATE, [name.decode() for name in names.tolist()]))
        now_ms = np.array([time.time_ns() // 1_000_000])
        features = snapshot(user, items, categories[which], self._around, now_ms)
        score = self._booster.inplace_predict(features)
        best = np.argsort(-score)[:n].tolist()
        return {
            "item_ids": [item_ids[k] for k in best],
            "scores": [float(score[k]) for k in best],
        }
