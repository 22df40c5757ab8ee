"""The report says everything, in three forms, and the page stands alone."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest

from pipelines.evaluate import report
from pipelines.evaluate.comparison import Comparison, compare
from pipelines.evaluate.impressions import Impressions
from pipelines.evaluate.intervals import Interval
from pipelines.evaluate.judge import Decision, Rules, judge
from pipelines.evaluate.report import (
    comparison_html,
    comparison_json,
    comparison_markdown,
    write_comparison,
    write_report,
)
from tests.pipelines.evaluate.candidates import a_comparison

FACTS = {"data version": "9f3c", "command": "python -m pipelines run <lake>"}


@pytest.fixture(scope="module")
def evidence() -> tuple[Comparison, Decision]:
    comparison = a_comparison()
    return comparison, judge(comparison, Rules(ece_max=0.05, slice_loss_max=0.03))


def test_the_report_has_every_figure(tmp_path: Path) -> None:
    metrics = {"champion": {"auc": 0.75}, "retrieval": {"ndcg_at_10": 0.5, "gini": 0.25}}
    ends = {
        "ndcg_at_10": Interval(0.5, 0.25, 0.625, 0.95),
        "gini": Interval(0.25, math.nan, math.nan, 0.95),
    }

    write_report(tmp_path / "r", "Models", {"rows": "10"}, metrics, {"retrieval": ends})

    text = (tmp_path / "r" / "report.md").read_text()
    assert "| auc | 0.75 |" in text
    assert "| ndcg_at_10 | 0.5 | 0.2500 to 0.6250 |" in text
    assert "| gini | 0.25 | no interval |" in text
    body = json.loads((tmp_path / "r" / "report.json").read_text())
    assert body["metrics"] == metrics
    assert body["intervals"]["retrieval"]["ndcg_at_10"]["high"] == 0.625
    assert body["intervals"]["retrieval"]["gini"]["low"] is None


def test_json_holds_every_interval_and_verdict_and_no_nan(
    evidence: tuple[Comparison, Decision],
) -> None:
    comparison, decision = evidence

    body = json.loads(comparison_json("Rankers", FACTS, *evidence))

    models = {model["model"]: model for model in body["comparison"]["models"]}
    auc = comparison.of("better").metrics["auc"]
    assert models["better"]["metrics"]["auc"] == {
        "value": auc.value,
        "low": auc.low,
        "high": auc.high,
        "level": 0.95,
    }
    assert body["decision"]["champion"] == decision.champion == "better"
    assert body["decision"]["judgements"][-1]["checks"][0]["value"] is None
    assert sum(models["better"]["curve"]["n"]) == comparison.impressions


def test_markdown_names_the_champion_all_checks_and_all_models(
    evidence: tuple[Comparison, Decision],
) -> None:
    text = comparison_markdown("Rankers", FACTS, *evidence)

    assert "**Champion: better** (promoted)" in text
    for judged in evidence[1].judgements:
        assert f"### {judged.model}: {judged.verdict}" in text
        for check in judged.checks:
            assert f"| {check.name} |" in text
    tables = [line for line in text.split("\n") if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert "too small" in text


def test_the_page_stands_alone_and_its_plots_are_well_formed(
    evidence: tuple[Comparison, Decision],
) -> None:
    page = comparison_html("Rankers <1>", FACTS, *evidence)

    plots = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(plots) == 3
    for plot in plots:
        assert ET.fromstring(plot).attrib["aria-label"]
        assert "nan" not in plot
    assert not re.search(r"""(src|href)=["'](https?:|//|/)|@import|<script""", page)
    assert "Rankers &lt;1&gt;" in page
    assert "python -m pipelines run &lt;lake&gt;" in page
    assert "too small to judge" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert not [name for name in ids if re.fullmatch(r"[a-z0-9]+_\d+", name)]


def test_the_same_evidence_gives_the_same_bytes(
    evidence: tuple[Comparison, Decision], tmp_path: Path
) -> None:
    write_comparison(tmp_path / "a", "Rankers", FACTS, *evidence)
    write_comparison(tmp_path / "b", "Rankers", FACTS, *evidence)

    for name in ("comparison.json", "comparison.md", "comparison.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_two_plots_of_a_page_share_an_id_and_every_id_referred_to_is_there(
    evidence: tuple[Comparison, Decision],
) -> None:
    page = comparison_html("Rankers", FACTS, *evidence)

    ids = re.findall(r'\bid="([^"]+)"', page)
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', page))
    assert len(ids) == len(set(ids))
    assert referred
    assert referred <= set(ids)


def test_an_incumbent_alone_and_without_slices_is_reported_too() -> None:
    impressions = Impressions.of([0, 1, 0, 1], [1, 1, 2, 2])
    alone = compare(impressions, {"m": [0.1, 0.2, 0.3, 0.4]}, incumbent="m", replicates=100)
    decision = judge(alone, Rules())

    page = comparison_html("One", {}, alone, decision)
    text = comparison_markdown("One", {}, alone, decision)

    assert "The incumbent stays" in page
    assert page.count("<svg ") == 2
    assert "## Slices" not in text


def test_names_with_signs_of_markup_stay_text(evidence: tuple[Comparison, Decision]) -> None:
    comparison, decision = evidence
    renamed = replace(comparison, incumbent="a|<b>&$c_1$")
    models = (replace(comparison.models[0], model="a|<b>&$c_1$"), *comparison.models[1:])

    page = comparison_html("One", {}, replace(renamed, models=models), decision)
    text = comparison_markdown("One", {}, replace(renamed, models=models), decision)

    plots = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert "<b>" not in page
    assert all(">a|&lt;b&gt;&amp;$c_1$</text>" in plot for plot in plots[:2])
    assert "| a\\|<b>&$c_1$ |" in text


def test_drawing_leaves_matplotlib_as_it_found_it(evidence: tuple[Comparison, Decision]) -> None:
    before = dict(mpl.rcParams)

    comparison_html("Rankers", FACTS, *evidence)

    assert dict(mpl.rcParams) == before


def test_no_module_of_evidence_imports_pyplot_which_keeps_global_figures() -> None:
    sources = [path.read_text() for path in Path(report.__file__).parent.glob("*.py")]

    assert len(sources) > 5
    assert not [source for source in sources if "pyplot" in source]
