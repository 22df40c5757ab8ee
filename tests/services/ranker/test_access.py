"""Which key may call what of the ranker, ingest and experiments."""

from __future__ import annotations

import pytest

from rankstream.adapters.keys import Scope
from services.experiments import app as experiments
from services.ingest import app as ingest
from services.ranker import app as ranker
from tests.services.ranker.conftest import Rig, an_admission


def test_every_method_of_grpc_has_a_scope(rig: Rig) -> None:
    assert ranker.SCOPES.keys() == ranker.methods(rig.ranker, an_admission()).keys()


@pytest.mark.parametrize(
    ("method", "path", "over_grpc"),
    [
        ("POST", "/v1/recommend", "Recommend"),
        ("POST", "/v1/rank", "Rank"),
        ("GET", "/v1/answers/r1", "Explain"),
        ("GET", "/v1/answers/r1/reproduction", "Reproduce"),
    ],
)
def test_both_transports_of_the_ranker_ask_for_the_same(
    method: str, path: str, over_grpc: str
) -> None:
    assert ranker.scope_of(method, path) == ranker.SCOPES[over_grpc]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/experiments", "read"),
        ("GET", "/v1/experiments/e/scorecard", "read"),
        ("POST", "/v1/experiments", "write"),
        ("POST", "/v1/experiments/e:stop", "write"),
    ],
)
def test_experiments_are_read_by_readers_and_changed_by_writers(
    method: str, path: str, scope: Scope
) -> None:
    assert experiments.scope_of(method, path) == scope


def test_events_are_written() -> None:
    assert ingest.scope_of("POST", "/v1/events") == "write"
