"""How long a million rows take; printed, not judged."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.validate.gate import gate, validate
from tests.pipelines.validate.sample import CATALOGUE, clean_rows, reference_of


@pytest.mark.slow
def test_a_million_rows_are_validated(tmp_path: Path) -> None:
    rows, reference = clean_rows(1_000_000), reference_of(clean_rows(seed=2))
    as_of_ms = int(rows.time_ms[-1])

    start = time.perf_counter()
    validate(rows, CATALOGUE, as_of_ms=as_of_ms, reference=reference)
    asked = time.perf_counter()
    gate(rows, CATALOGUE, tmp_path, data_version="v1", as_of_ms=as_of_ms, reference=reference)
    written = time.perf_counter()

    print(
        f"1 000 000 rows x {rows.features.shape[1]} features: checks {asked - start:.1f} s,"
        f" with report and next reference {written - asked:.1f} s"
    )
