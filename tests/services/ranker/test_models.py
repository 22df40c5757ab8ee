"""Aliases follow their pointers; what is refused changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankstream.adapters.kafka import Record
from rankstream.errors import InvalidArtifact, NotReady
from services.ranker.models import PopularItems, load_ratings
from tests.services.ranker.conftest import Rig
from tests.serving_artifacts import write_index


def record(key: bytes, value: bytes | None) -> Record:
    return Record("models", 0, 7, 0, key, value)


async def test_the_champion_makes_the_service_ready(cold: Rig) -> None:
    with pytest.raises(NotReady):
        cold.models.champion()

    await cold.serve_model("champion", "m1")

    assert cold.models.champion().model_id == "m1"
    assert cold.health.reasons() == {}


async def test_a_new_pointer_replaces_the_model_and_its_metric(rig: Rig) -> None:
    await rig.serve_model("champion", "m2")

    assert rig.models.champion().model_id == "m2"
    labels = {"role": "ranker", "alias": "champion"}
    assert rig.count("model_info", **labels, model_id="m2") == 1
    assert rig.count("model_info", **labels, model_id="m1") == 0


async def test_a_refused_model_leaves_the_one_in_force(rig: Rig) -> None:
    with pytest.raises(InvalidArtifact, match="are not a ModelPointer"):
        await rig.models.follow(record(b"ranker/champion", b"\xff"))
    with pytest.raises(InvalidArtifact, match="nowhere is not there"):
        await rig.point("ranker/champion", "nowhere")

    assert rig.models.champion().model_id == "m1"


async def test_an_alias_that_is_deleted_is_gone_but_the_champion_stays(rig: Rig) -> None:
    await rig.serve_model("challenger", "m2")

    await rig.models.follow(record(b"ranker/challenger", None))
    await rig.models.follow(record(b"ranker/champion", None))

    assert rig.models.of_alias("challenger") is None
    assert rig.models.champion().model_id == "m1"


async def test_models_in_use_outlive_the_limit_on_kept_ones(rig: Rig) -> None:
    await rig.serve_model("challenger", "c1")
    for n in range(2, 9):
        await rig.serve_model("champion", f"m{n}")

    assert (await rig.models.past("c1", "c1")).model_id == "c1"
    assert (await rig.models.past("m7", "m7")).model_id == "m7"


def test_an_index_of_before_there_were_rating_tables_has_one_of_no_items(tmp_path: Path) -> None:
    artifact = write_index(
        tmp_path, "index", ["a"], np.ones((1, 2), np.float32), np.ones(1, np.float32)
    )

    assert len(load_ratings(artifact.uri)) == 0


async def test_popular_items_come_from_the_champion_index(tmp_path: Path) -> None:
    popularity = np.array([1, 3, 2], np.float32)
    vectors = np.ones((3, 2), np.float32)
    artifact = write_index(tmp_path, "index", ["a", "b", "c"], vectors, popularity)

    popular = PopularItems.load(artifact.uri, artifact.sha256)

    nothing = np.empty(0, np.uint64)
    assert popular.without(nothing, [], 5) == ["b", "c", "a"]
    assert popular.without(popular.hashes[:1], ["a"], 5) == ["c"]
