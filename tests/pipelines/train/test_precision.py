"""Graphs with smaller numbers are measured before they serve."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from pipelines.train import neural
from pipelines.train.neural_rankers import fit_mmoe
from pipelines.train.precision import ERROR_MAX, Precision, Variant, chosen, variants
from rankstream.errors import InvalidArtifact
from tests.pipelines.rows import some_rows


def test_every_precision_scores_the_same_rows_within_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neural, "EPOCHS_MAX", 3)
    rows = some_rows()
    rows.features[:, 2] += 1e5  # a float16 has no place for it
    ranker = fit_mmoe(rows.features, rows.clicked, rows.purchased, seed=1)

    found = variants(ranker.graph, rows.features, seed=1)

    assert found[Precision.FLOAT32].max_abs == 0.0
    assert len(found[Precision.INT8].graph) < len(found[Precision.FLOAT16].graph)
    assert len(found[Precision.FLOAT16].graph) < len(found[Precision.FLOAT32].graph)
    for precision, limit in ((Precision.FLOAT16, 5e-3), (Precision.INT8, 0.05)):
        variant = found[precision]
        assert variant.cpu_ms > 0
        assert 0 < variant.max_abs < limit
        session = ort.InferenceSession(variant.graph)
        assert [one.name for one in session.get_outputs()] == ["logit", "pctr", "pcvr"]
        (pctr,) = session.run(["pctr"], {"features": rows.features[:500]})
        gap = np.abs(pctr - ranker.predict(rows.features[:500])).max()
        assert pctr.dtype == np.float32
        assert gap <= variant.max_abs + 1e-3


@pytest.mark.parametrize("error", [2 * ERROR_MAX, float("nan")])
def test_a_precision_that_is_off_by_too_much_is_not_served(error: float) -> None:
    found = {Precision.INT8: Variant(b"", error, 1.0)}

    with pytest.raises(InvalidArtifact, match=r"the int8 graph is off by .* \(limit 0\.005\)"):
        chosen(found, Precision.INT8)
