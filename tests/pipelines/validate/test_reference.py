"""The reference comes from the champion, with all that is known of its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.promote.ledger import Promotion, append
from pipelines.validate.gate import validate
from pipelines.validate.moments import clustered_se, moments
from pipelines.validate.reference import (
    REFERENCE,
    champion_reference,
    grouped_sd,
    read_reference,
    reference_of_manifest,
    write_reference,
)
from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from rankstream.monitoring.histogram import encode_histogram, reference_histogram
from tests.pipelines.validate.sample import (
    AS_OF_MS,
    CATALOGUE,
    clean_rows,
    feature,
    reference_of,
    with_feature,
)


def a_champion(root: Path, *, spec_id: str = spec.SPEC_ID) -> Artifact:
    rows = clean_rows(seed=2)
    fields = {
        "model_id": "m1", "role": "ranker", "family": "logistic_regression", "created_ms": 1,
        "data_version": "v1", "train_from_ms": 0, "train_until_ms": 1, "spec_id": spec_id,
        "parity_max_abs": 0.0,
        "feature_means": tuple(rows.features.mean(axis=0, dtype=np.float64).tolist()),
        "feature_histograms": {
            name: encode_histogram(reference_histogram(feature(rows, name)))
            for name in spec.NAMES
        },
    }  # fmt: skip
    return write_artifact(root / "ranker" / "m1", fields, {"model.onnx": b"x"})


def a_ledger(root: Path, artifact: Artifact) -> Path:
    line = Promotion(
        time_ms=1,
        role="ranker",
        alias="champion",
        model_id="m1",
        version="1",
        data_version="v1",
        sha256=artifact.sha256,
        uri=artifact.uri,
        who="ann",
        why="new",
        metrics={},
    )
    path = root / "promotions.jsonl"
    append(path, [replace(line, alias="challenger", data_version="v0"), line])
    return path


def test_without_a_champion_there_is_no_reference(tmp_path: Path) -> None:
    assert champion_reference(tmp_path / "promotions.jsonl", tmp_path) is None


def test_a_champion_of_another_spec_is_no_reference(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path, a_champion(tmp_path, spec_id="another"))

    assert champion_reference(ledger, tmp_path) is None


def test_a_champion_that_never_saw_the_gate_is_known_by_its_manifest(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path, a_champion(tmp_path))

    found = champion_reference(ledger, tmp_path / "validation")

    assert found is not None
    assert (found.source, found.grouped, found.ctr) == ("m1", True, None)
    checks = validate(clean_rows(), CATALOGUE, as_of_ms=AS_OF_MS, reference=found).checks
    assert {c.name for c in checks if c.verdict != "pass"} == {"ctr", "categories"}


@pytest.mark.parametrize(("change", "blamed"), [(0.3, "spread"), (1.0, "mean")])
def test_a_manifest_is_enough_to_see_a_feature_move(
    change: float, blamed: str, tmp_path: Path
) -> None:
    reference = reference_of_manifest(a_champion(tmp_path).manifest)
    rows = clean_rows()
    values = feature(rows, "user_age")
    moved = values + 30 if blamed == "mean" else 65 + (values - 65) * np.float32(change)

    found = validate(
        with_feature(rows, "user_age", moved), CATALOGUE, as_of_ms=AS_OF_MS, reference=reference
    )

    assert [(c.name, c.subject) for c in found.having("fail")] == [(blamed, "user_age")]


def test_what_the_gate_left_goes_before_the_manifest(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path, a_champion(tmp_path))
    left = reference_of(clean_rows())
    write_reference(tmp_path / "validation" / "v1" / REFERENCE, left)

    assert champion_reference(ledger, tmp_path / "validation") == left


def test_a_damaged_reference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / REFERENCE
    path.write_text("{}")

    with pytest.raises(InvalidArtifact, match="Field required"):
        read_reference(path)


def test_a_manifest_without_histograms_is_refused(tmp_path: Path) -> None:
    manifest = a_champion(tmp_path).manifest.model_copy(update={"feature_histograms": {}})

    with pytest.raises(InvalidArtifact, match=f"m1 has {spec.WIDTH} means and lacks histograms"):
        reference_of_manifest(manifest)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), users=st.integers(2, 9))
def test_a_clustered_error_is_that_of_means_of_equal_users(seed: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    of_user = rng.normal(size=users)
    user = np.repeat(np.arange(users), 50)
    values = of_user[user]

    se = clustered_se(values - values.mean(), user)

    assert se == pytest.approx(of_user.std(ddof=1) / np.sqrt(users))


def test_rows_of_one_user_say_nothing_of_others() -> None:
    assert clustered_se(np.array([-1.0, 1.0]), np.zeros(2, np.int64)) == float("inf")


def test_a_constant_has_no_spread_to_the_bit() -> None:
    column = np.full((1, 1_000), 0.02, np.float32)
    groups = np.arange(1_000)

    found = moments(column, groups, groups)

    assert found.sd[0] == found.mean_se[0] == 0.0


def test_a_grouped_spread_is_near_the_true_one() -> None:
    values = np.append(np.zeros(4_000), np.random.default_rng(1).random(6_000))
    histogram = reference_histogram(values)

    assert grouped_sd(histogram.edges, histogram.counts[:-1]) == pytest.approx(
        values.std(), rel=0.02
    )
