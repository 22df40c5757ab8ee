"""The model registry (MLflow): versions with their evidence, aliases, and who moved them when."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from rankstream.adapters.artifacts import Artifact, read_manifest
from rankstream.errors import DependencyUnavailable

EXPERIMENT: Final = "rankstream"
LEDGER: Final = "promotions.jsonl"


@dataclass(frozen=True)
class Promotion:
    """An alias now points to a model: a line of the ledger."""

    time_ms: int
    role: str
    alias: str
    model_id: str
    version: str
    data_version: str
    sha256: str
    uri: str
    who: str
    why: str
    metrics: dict[str, float]


def open_registry(uri: str) -> Any:
    """An MlflowClient; makes the tables of a new SQLite registry (4 s).

    Raises: DependencyUnavailable: the registry cannot be opened.
    """
    # Slow to import (2.6 s) and read at import: no telemetry leaves this machine.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            client.create_experiment(EXPERIMENT)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise DependencyUnavailable(
            f"dependency_unavailable: model registry {uri}: {str(error)[:200]}."
            " Nothing was registered. Mend it and run again."
        ) from None
    return client


def prepare(uri: str) -> None:
    """Open the registry and forget it: to have imports and migrations behind us."""
    open_registry(uri)


def register(
    uri: str,
    artifacts: list[tuple[str, Artifact]],
    ledger: Path,
    *,
    time_ms: int,
    who: str,
    why: str,
) -> list[Promotion]:
    """Register artefacts and move (alias, artefact) aliases; all versions exist before one moves.

    Raises:
        DependencyUnavailable: the registry fails; no alias was moved by the failing call.
        InvalidArtifact: a folder is no longer what it was when it was written.
    """
    client = open_registry(uri)
    from mlflow.exceptions import MlflowException

    for _, artifact in artifacts:
        read_manifest(artifact.uri, artifact.sha256)
    try:
        versions = [_version(client, artifact) for _, artifact in artifacts]
        for (alias, artifact), version in zip(artifacts, versions, strict=True):
            client.set_registered_model_alias(artifact.manifest.role, alias, version)
    except (MlflowException, SQLAlchemyError) as error:
        raise DependencyUnavailable(
            f"dependency_unavailable: model registry {uri}: {str(error)[:200]}."
            " Nothing was published. Mend it and run again."
        ) from None
    promotions = [
        Promotion(
            time_ms=time_ms,
            role=artifact.manifest.role,
            alias=alias,
            model_id=artifact.manifest.model_id,
            version=version,
            data_version=artifact.manifest.data_version,
            sha256=artifact.sha256,
            uri=artifact.uri,
            who=who,
            why=why,
            metrics=dict(artifact.manifest.metrics),
        )
        for (alias, artifact), version in zip(artifacts, versions, strict=True)
    ]
    _append(ledger, promotions)
    return promotions


def _version(client: Any, artifact: Artifact) -> str:
    manifest = artifact.manifest
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run = client.create_run(experiment.experiment_id, run_name=manifest.model_id).info.run_id
    for name, value in manifest.metrics.items():
        client.log_metric(run, name, value)
    for name, parameter in manifest.parameters.items():
        client.log_param(run, name, parameter)
    client.log_param(run, "data_version", manifest.data_version)
    client.set_terminated(run)
    if not client.search_registered_models(f"name = '{manifest.role}'"):
        client.create_registered_model(manifest.role)
    tags = {"model_id": manifest.model_id, "sha256": artifact.sha256, "family": manifest.family}
    version = client.create_model_version(manifest.role, artifact.uri, run_id=run, tags=tags)
    return str(version.version)


def _append(ledger: Path, promotions: list[Promotion]) -> None:
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a", encoding="utf-8") as file:
        for promotion in promotions:
            file.write(json.dumps(asdict(promotion), sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
