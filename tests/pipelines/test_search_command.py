"""`python -m pipelines search` writes parameters that `run` takes, and the registry a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.__main__ import app
from pipelines.features.replay import ItemFacts
from pipelines.promote.registry import open_registry
from pipelines.train.families import Family
from pipelines.train.parameters import read_parameters
from rankstream.contracts.events import Event
from tests.parity.events import START_MS, an_event
from tests.parity.test_training_rows import ITEMS
from tests.pipelines.features.slates import DAY_MS, write_lake


def a_clicked_log() -> list[Event]:
    """An impression a minute; of every third the item is clicked."""
    events = []
    for k in range(120):
        item = ITEMS[k % len(ITEMS)]
        about = {
            "user": f"u{k % 4}",
            "item_id": item.item_id,
            "category": item.category,
            "request_id": f"r{k}",
        }
        events.append(an_event("impression", 2 * k, after_ms=60_000 * k, **about))
        if k % 3 == 0:
            events.append(an_event("click", 2 * k + 1, after_ms=60_000 * k + 500, **about))
    return events


async def known_items(bootstrap: str) -> dict[str, ItemFacts]:
    return {item.item_id: ItemFacts(item.category, dict(item.attributes)) for item in ITEMS}


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_search_of_the_lakes_rows_is_written_down_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lake(tmp_path / "lake", a_clicked_log(), served=40)
    monkeypatch.setattr("pipelines.__main__.read_items", known_items)
    out, registry = tmp_path / "best.json", f"sqlite:///{tmp_path}/registry.db"

    def asked(trials: int) -> dict[str, object]:
        done = CliRunner().invoke(
            app,
            [
                *("search", "--lake", str(tmp_path / "lake"), "--out", str(out)),
                *("--storage", str(tmp_path / "trials.db"), "--registry", registry),
                *("--family", Family.LOGISTIC_REGRESSION, "--trials", str(trials)),
                *("--until-ms", str(START_MS + 90 * DAY_MS)),
            ],
        )
        assert done.exit_code == 0, done.output
        summary: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return summary

    first, then = asked(2), asked(3)

    assert (first["trials"], then["trials"]) == (2, 3)
    assert first["data_version"] == then["data_version"]
    assert read_parameters(out) == (Family.LOGISTIC_REGRESSION, then["parameters"])
    with open_registry(registry) as client:
        run = client.get_run(then["run_id"])
    assert run.data.metrics["log_loss"] == then["log_loss"]
    assert run.data.params["data_version"] == then["data_version"]
