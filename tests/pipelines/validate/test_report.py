"""The report is one page that needs nothing else, and JSON of the same checks."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.validate.figures import histogram_svg, spread_over
from pipelines.validate.gate import validate
from pipelines.validate.ranges import Range
from pipelines.validate.report import FIGURES_MAX, HTML, JSON, as_html, write_report
from rankstream.features import spec
from rankstream.monitoring.histogram import reference_histogram
from tests.pipelines.validate.sample import (
    AS_OF_MS,
    CATALOGUE,
    clean_rows,
    reference_of,
    with_feature,
)

CLEAN = clean_rows()
REFERENCE = reference_of(clean_rows(seed=2))


def test_a_page_shows_verdicts_in_words_and_draws_what_failed(tmp_path: Path) -> None:
    bad = with_feature(with_feature(CLEAN, "item_ctr", np.nan, [7]), "user_age", 50.0)
    found = validate(bad, CATALOGUE, as_of_ms=AS_OF_MS, reference=REFERENCE)

    write_report(tmp_path, found, bad, REFERENCE, data_version="v1")

    page = (tmp_path / HTML).read_text()
    assert "These rows were refused: nothing was trained" in page
    assert "✕ fail" in page
    assert "✓ pass" in page
    assert page.count("<svg") == 2
    assert not re.search(r'(src|href)="(?!#)|@import|url\((?!#)', page)
    figures = re.findall(r"<svg.*?</svg>", page, re.S)
    ids = [
        element.attrib["id"]
        for svg in figures
        for element in ET.fromstring(svg).iter()
        if "id" in element.attrib
    ]
    assert len(ids) == len(set(ids))


def test_the_json_has_every_check_and_no_nan(tmp_path: Path) -> None:
    found = validate(CLEAN, CATALOGUE, as_of_ms=AS_OF_MS)

    write_report(tmp_path, found, CLEAN, None, data_version="v1")

    def refuse(text: str) -> None:
        pytest.fail(f"{text} is not JSON")

    body = json.loads((tmp_path / JSON).read_text(), parse_constant=refuse)
    assert body["verdict"] == "pass"
    assert body["reference"] is None
    assert [check["name"] for check in body["checks"]] == [check.name for check in found.checks]


def test_the_same_rows_have_the_same_page() -> None:
    bad = with_feature(CLEAN, "item_ctr", 1.5, [7])
    found = validate(bad, CATALOGUE, as_of_ms=AS_OF_MS, reference=REFERENCE)

    pages = {as_html(found, bad, REFERENCE, data_version="v1") for _ in range(2)}

    assert len(pages) == 1


def test_many_failures_are_listed_and_the_first_are_drawn() -> None:
    bad = replace(CLEAN, features=np.full_like(CLEAN.features, np.nan))
    found = validate(bad, CATALOGUE, as_of_ms=AS_OF_MS, reference=REFERENCE)

    page = as_html(found, bad, REFERENCE, data_version="v1")

    assert page.count("<svg") == FIGURES_MAX
    assert f"{spec.WIDTH - FIGURES_MAX} more are not drawn" in page


def test_names_from_outside_do_not_become_markup() -> None:
    items = {name: replace(facts, category="<script>") for name, facts in CATALOGUE.items()}
    found = validate(CLEAN, items, as_of_ms=AS_OF_MS, reference=REFERENCE)

    page = as_html(found, CLEAN, REFERENCE, data_version="v1")

    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "values", [[0.5] * 9, [np.nan] * 9, [1e30, -1e30, np.inf], [], [0.0, 0.25, 1.0]]
)
def test_whatever_the_values_there_is_a_drawing(values: list[float]) -> None:
    reference = reference_histogram(np.linspace(0, 1, 500))

    svg = histogram_svg(np.array(values, np.float32), Range(0, 1), reference, title="range of x")

    assert ET.fromstring(svg).tag.endswith("svg")


def test_a_reference_keeps_its_counts_in_other_bins() -> None:
    values = np.append(np.zeros(300), np.random.default_rng(1).normal(size=700))
    histogram = reference_histogram(values)

    counts = spread_over(histogram, np.linspace(-6, 6, 33))

    assert counts.sum() == pytest.approx(1_000)
    assert counts[15] + counts[16] > 300
