"""`python -m pipelines.features`: register the feature definitions in Feast; read through it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pipelines import command
from rankstream.features import spec

app = typer.Typer(add_completion=False, help=__doc__)
RedisUrl = Annotated[str, typer.Option(help="redis://host:port/database")]
Registry = Annotated[Path, typer.Option(help="file that holds Feast's registry")]
REDIS_URL = "redis://127.0.0.1:6379/0"
REGISTRY = Path(".run/state/feast/registry.db")


@app.command("apply")
def apply_command(
    redis_url: RedisUrl = REDIS_URL,
    registry: Registry = REGISTRY,
    offline: Annotated[Path, typer.Option(help="history of the views, Parquet")] = Path(
        ".run/state/lake/feature_rows"
    ),
) -> None:
    """Register entities, views and the feature service; a JSON summary at the end."""
    with command.steps() as step:
        step("Feast definitions", 0, 2)
        # Feast takes seconds to import: they are seen as a step.
        from pipelines.features.store import apply as apply_definitions

        step("Feast definitions", 1, 2)
        store = apply_definitions(redis_url=redis_url, registry=registry, offline=offline)
        step("Feast definitions", 2, 2)
    summary = {
        "registry": str(registry),
        "spec_id": spec.SPEC_ID,
        "feature_views": sorted(view.name for view in store.list_feature_views()),
        "feature_services": sorted(service.name for service in store.list_feature_services()),
    }
    typer.echo(json.dumps(summary))


@app.command()
def show(
    user_id: Annotated[str, typer.Option(help="whose features")],
    item_id: Annotated[str, typer.Option(help="of which item")],
    category: Annotated[str, typer.Option(help="the item's category")],
    redis_url: RedisUrl = REDIS_URL,
    registry: Registry = REGISTRY,
) -> None:
    """Print what Feast says a ranker would see now, as JSON."""
    from pipelines.features.store import open_store

    store = open_store(redis_url=redis_url, registry=registry)
    entity = {
        "user_id": user_id,
        "item_id": item_id,
        "category": category,
        "as_of_ms": time.time_ns() // 1_000_000,
    }
    found = store.get_online_features(
        features=store.get_feature_service("ranker"),
        entity_rows=[entity],
        full_feature_names=True,
    ).to_dict()
    typer.echo(
        json.dumps({name: found[f"ranker_features__{name}"][0] for name in spec.NAMES}, indent=1)
    )


if __name__ == "__main__":
    sys.exit(command.run(app))
