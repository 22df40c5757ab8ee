"""Prometheus, Grafana and the runbook say the same as the services and the catalogue of metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankstream import metrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
CATALOGUE = {
    found.name: found for found in vars(metrics).values() if isinstance(found, metrics.Metric)
}
# What every process exports beside the catalogue, and what Prometheus makes itself.
PROCESS = ("rankstream_process_resident_memory_bytes", "rankstream_process_cpu_seconds_total")
WORD = re.compile(r"\b(?:rankstream_\w+|up)\b")
SELECTOR = re.compile(r"(rankstream_\w+)\{([^}]*)\}")


def promql() -> Iterator[tuple[str, str]]:
    """(where, expression) of every rule and panel."""
    for rule in RULES:
        yield f"rule {rule['alert']}", rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]


def exported(name: str) -> metrics.Metric | None:
    """The catalogue line behind a series name; a histogram exports three."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    found = CATALOGUE.get(re.sub(r"_(bucket|sum|count)$", "", name))
    return found if found is not None and found.kind == "histogram" else None


@pytest.mark.parametrize(("where", "expression"), list(promql()))
def test_rules_and_panels_ask_for_metrics_and_labels_of_the_catalogue(
    where: str, expression: str
) -> None:
    names = WORD.findall(expression)

    assert names, where
    unknown = [n for n in names if n not in (*PROCESS, "up") and exported(n) is None]
    assert unknown == []
    for name, matchers in SELECTOR.findall(expression):
        line = exported(name)
        assert line is not None
        asked = set(re.findall(r"(\w+)\s*[=!]~?", matchers))
        assert asked <= {*line.labels, "le"}, f"{where}: {name} has labels {line.labels}"
    grouped = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in group.split(",")
    }
    lines = [line for name in names if (line := exported(name)) is not None]
    assert grouped <= {"le", "job", *(label for line in lines for label in line.labels)}, where


@pytest.mark.parametrize(("where", "expression"), list(promql()))
def test_counters_are_read_as_rates_and_gauges_are_not(where: str, expression: str) -> None:
    for name in WORD.findall(expression):
        line = exported(name)
        if line is None:
            continue
        rated = re.search(rf"(?:rate|increase)\({name}", expression) is not None
        assert rated == (line.kind in ("counter", "histogram")), f"{where}: {name}"


def test_every_alert_has_a_section_in_the_runbook() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = {title.lower() for title in re.findall(r"^## (\w+)$", text, re.M)}

    links = {rule["alert"]: rule["annotations"]["runbook"] for rule in RULES}

    assert {link for link in links.values()} == {
        f"docs/runbook.md#{alert.lower()}" for alert in links
    }
    assert {alert.lower() for alert in links} == sections


def test_the_runbook_names_only_metrics_and_settings_that_exist() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()

    names = re.findall(r"\brankstream_[a-z_]+", text)
    assert names
    assert [name for name in names if exported(name) is None] == []
    for prefix, field in re.findall(r"\b(INGEST|MONITOR)_([A-Z_]+)\b", text):
        module = (ROOT / "services" / prefix.lower() / "settings.py").read_text()
        assert re.search(rf"^    {field.lower()}:", module, re.M), f"{prefix}_{field}"


def test_panels_do_not_overlap_and_use_the_provisioned_datasource() -> None:
    source = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    assert DASHBOARDS

    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
            for target in panel.get("targets", ()):
                assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
)
def test_promtool_takes_configuration_rules_and_their_tests(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run(
        ["promtool", *arguments],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_every_panel_asks_in_promql_that_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (_, expression) in enumerate(promql())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    ran = subprocess.run(
        ["promtool", "check", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
