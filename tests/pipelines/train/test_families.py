"""What every ranker goes through holds for one of two labels too."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from pipelines.train import neural
from pipelines.train.artefact import PARITY_MAX_ABS
from pipelines.train.calibration import Method
from pipelines.train.checkpoint import Run
from pipelines.train.corrections import Corrections, PositionBias
from pipelines.train.families import Family, Options, fitted, served
from pipelines.train.precision import ERROR_MAX, Precision
from rankstream.errors import InvalidInput
from tests.pipelines.rows import some_rows

ROWS = some_rows()


@pytest.mark.parametrize("method", [Method.PLATT, Method.ISOTONIC])
def test_calibration_moves_pctr_and_leaves_pcvr_in_every_precision(
    monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    monkeypatch.setattr(neural, "EPOCHS_MAX", 2)
    plain, mapped = (
        served(
            fitted(Family.MMOE, ROWS, Options(calibration=one), seed=1, run=Run()),
            ROWS.features,
            Precision.FLOAT32,
            seed=1,
        )
        for one in (Method.NONE, method)
    )

    assert mapped.parity <= PARITY_MAX_ABS
    assert mapped.narrowed[Precision.FLOAT16].max_abs < ERROR_MAX
    for precision, variant in mapped.narrowed.items():
        outputs = [
            dict(zip(names, session.run(names, {"features": ROWS.features[:500]}), strict=True))
            for session in map(
                ort.InferenceSession, (plain.narrowed[precision].graph, variant.graph)
            )
            for names in [[one.name for one in session.get_outputs()]]
        ]
        assert np.array_equal(outputs[0]["pcvr"], outputs[1]["pcvr"])
        assert np.abs(outputs[0]["pctr"] - outputs[1]["pctr"]).max() > 1e-3


@pytest.mark.parametrize("position", [PositionBias.INPUT, PositionBias.WEIGHTS])
def test_position_bias_of_two_labels_is_refused(position: PositionBias) -> None:
    options = Options(corrections=Corrections(position))

    with pytest.raises(InvalidInput, match=f"position bias {position} for mmoe"):
        fitted(Family.MMOE, ROWS, options, seed=1, run=Run())
