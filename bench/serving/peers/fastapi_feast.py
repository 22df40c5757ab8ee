"""Plain FastAPI, Feast's own reader and XGBoost: `python -m bench.serving.peers.fastapi_feast`.

The rows and the arithmetic of the features are ours, so that all that differs is how an answer is
put together.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import uvicorn
import xgboost as xgb
from fastapi import FastAPI

from pipelines.features.store import open_store
from rankstream.adapters.redis_rows import CATEGORY_STATE, ITEM_STATE, USER_STATE, View
from rankstream.features.rows import CONTEXT_ROW, Rows, empty_rows
from rankstream.features.snapshot import snapshot


class Request(pydantic.BaseModel):
    """Items to order for a user."""

    user_id: str
    item_ids: list[str]
    n: int


class Reply(pydantic.BaseModel):
    """The best first."""

    item_ids: list[str]
    scores: list[float]


def ranking(store: Any, booster: xgb.Booster) -> FastAPI:
    """The service."""
    app = FastAPI()
    around = empty_rows(2, CONTEXT_ROW)[None]

    def rows(view: View, ids: list[str]) -> Rows:
        found = store.get_online_features(
            features=[f"{view.name}:state"],
            entity_rows=[{view.join_key: entity_id} for entity_id in ids],
        ).to_dict()["state"]
        known: Rows = np.frombuffer(b"".join(found), view.dtype)
        return known

    @app.post("/rank")
    def rank(request: Request) -> Reply:
        items = rows(ITEM_STATE, request.item_ids)
        names, which = np.unique(items["category"], return_inverse=True)
        categories = rows(CATEGORY_STATE, [name.decode() for name in names.tolist()])[which]
        features = snapshot(
            rows(USER_STATE, [request.user_id]),
            items,
            categories,
            around,
            np.array([time.time_ns() // 1_000_000]),
        )
        score = booster.inplace_predict(features)
        best = np.argsort(-score)[: request.n].tolist()
        return Reply(
            item_ids=[request.item_ids[k] for k in best], scores=[float(score[k]) for k in best]
        )

    return app


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("redis-url", "registry", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    booster = xgb.Booster(model_file=chosen.model)
    booster.set_param({"nthread": 1})
    store = open_store(redis_url=chosen.redis_url, registry=Path(chosen.registry))
    uvicorn.run(ranking(store, booster), host="127.0.0.1", port=chosen.port, log_level="warning")


if __name__ == "__main__":
    main()
