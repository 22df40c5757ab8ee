"""The model registry (MLflow): versions with their evidence, and aliases that move.

What a ranker or an index is loaded from is its artefact; the registry and the ledger name it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from pipelines.promote.connection import parse_address, turn, unavailable
from pipelines.promote.ledger import PROMOTED, Promotion, append
from rankstream.adapters.artifacts import Artifact, read_manifest
from rankstream.errors import SpecMismatch
from rankstream.features import spec

EXPERIMENT: Final = "rankstream"


@contextmanager
def open_registry(uri: str) -> Iterator[Any]:
    """An MlflowClient while it is our turn; makes the tables of a new registry (4 s).

    Raises:
        InvalidSettings: the address is refused.
        DependencyUnavailable: the registry cannot be opened, or fails while it is.
    """
    # Slow to import (2.6 s) and read at import: no telemetry leaves this machine.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    url = parse_address(uri)
    with turn(url):
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            # Written anew, a path would have its signs escaped: MLflow makes folders by it.
            address = uri if url.drivername == "sqlite" else str(url)
            client = MlflowClient(tracking_uri=address, registry_uri=address)
            if client.get_experiment_by_name(EXPERIMENT) is None:
                client.create_experiment(EXPERIMENT)
            yield client
        except (MlflowException, SQLAlchemyError) as error:
            raise unavailable(url, error) from None


def prepare(uri: str) -> None:
    """Open the registry and forget it: to have imports and migrations behind us."""
    with open_registry(uri):
        return


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
        DependencyUnavailable: the registry fails. The ledger, which says what serves, is as it was;
            so are all aliases, unless it failed between two of them: those the next call moves.
        InvalidArtifact: a folder is no longer what it was when it was written.
    """
    for _, artifact in artifacts:
        read_manifest(artifact.uri, artifact.sha256)
    # The ledger in the same turn: its last line is what the alias holds.
    with open_registry(uri) as client:
        versions = [_version(client, artifact) for _, artifact in artifacts]
        for (alias, artifact), version in zip(artifacts, versions, strict=True):
            client.set_registered_model_alias(artifact.manifest.role, alias, version)
        promotions = _promotions(artifacts, versions, time_ms=time_ms, who=who, why=why)
        append(ledger, promotions)
    return promotions


def _promotions(
    artifacts: list[tuple[str, Artifact]],
    versions: list[str],
    *,
    time_ms: int,
    who: str,
    why: str,
) -> list[Promotion]:
    return [
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


def point(
    uri: str,
    to: Promotion,
    ledger: Path,
    *,
    alias: str,
    time_ms: int,
    who: str,
    why: str,
    move: str = PROMOTED,
) -> Promotion:
    """Point an alias to a registered model, once its artefact was found whole; the new line.

    Args:
        to: a line of the ledger that names the model.

    Raises:
        InvalidArtifact: the artefact is not there any more as it was written.
        SpecMismatch: it reads other features than this version makes.
        DependencyUnavailable: the registry fails. In each case the alias is as it was.
    """
    manifest = read_manifest(to.uri, to.sha256)
    if manifest.spec_id and manifest.spec_id != spec.SPEC_ID:
        raise SpecMismatch(
            f"spec_mismatch: {to.model_id} reads features of spec {manifest.spec_id}, this version"
            f" makes {spec.SPEC_ID}. {to.role}/{alias} is as it was."
            " Train again, or run the version that it was trained with."
        )
    moved = replace(to, alias=alias, time_ms=time_ms, who=who, why=why, move=move)
    with open_registry(uri) as client:
        client.set_registered_model_alias(to.role, alias, to.version)
        append(ledger, [moved])
    return moved


def record(
    uri: str, name: str, *, metrics: Mapping[str, float], parameters: Mapping[str, str | float]
) -> str:
    """Write down a run that made no model, beside those that did; its id.

    Raises: DependencyUnavailable: the registry fails.
    """
    with open_registry(uri) as client:
        return _run(client, name, metrics, parameters)


def _version(client: Any, artifact: Artifact) -> str:
    manifest = artifact.manifest
    parameters = {**manifest.parameters, "data_version": manifest.data_version}
    run = _run(client, manifest.model_id, manifest.metrics, parameters)
    if not client.search_registered_models(f"name = '{manifest.role}'"):
        client.create_registered_model(manifest.role)
    tags = {"model_id": manifest.model_id, "sha256": artifact.sha256, "family": manifest.family}
    version = client.create_model_version(manifest.role, artifact.uri, run_id=run, tags=tags)
    return str(version.version)


def _run(
    client: Any, name: str, metrics: Mapping[str, float], parameters: Mapping[str, str | float]
) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run = str(client.create_run(experiment.experiment_id, run_name=name).info.run_id)
    for metric, value in metrics.items():
        client.log_metric(run, metric, value)
    for parameter, setting in parameters.items():
        client.log_param(run, parameter, setting)
    client.set_terminated(run)
    return run
