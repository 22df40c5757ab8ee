"""docs/settings.md says what the settings classes say."""

from __future__ import annotations

import pytest
from pydantic import Field

from deploy.settings_table import MEANINGS, ROOT, Setting, rows_of, services, settings_of, table
from rankstream.adapters.settings import ServiceSettings


def test_the_committed_page_is_the_one_that_the_classes_give() -> None:
    committed = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")

    assert committed == table(ROOT), "python -m deploy.settings_table > docs/settings.md"


def test_every_service_with_settings_is_there() -> None:
    assert {"experiments", "ingest", "monitor", "ranker", "retrieval"} <= set(services(ROOT))


@pytest.mark.parametrize("service", services(ROOT))
def test_every_setting_says_what_it_does(service: str) -> None:
    silent = [row.variable for row in settings_of(service) if not row.meaning]

    assert silent == [], "write a comment above the field, or a line in MEANINGS"


def test_no_meaning_outlives_its_setting() -> None:
    prefixes = {service: f"{service.upper()}_" for service in services(ROOT)}
    fields = {
        f"{service}.{row.variable.removeprefix(prefix).lower()}"
        for service, prefix in prefixes.items()
        for row in settings_of(service)
    }
    known = fields | {field.partition(".")[2] for field in fields}

    assert set(MEANINGS) - known == set()


class OddSettings(ServiceSettings):
    """Fields of every shape that the table must read."""

    port: int = Field(default=1, ge=0, description="Said in the field.")
    # Said above,
    # in two lines.
    wait_ms: int = Field(default=90_000, gt=0, le=100_000)
    name: str | None = Field(default=None, min_length=1)
    """Said below."""


def test_text_comes_from_the_field_the_comment_above_or_the_string_below() -> None:
    rows = rows_of("odd", "ODD_", OddSettings)[:3]

    assert rows == [
        Setting("ODD_PORT", "`1`", "whole number ≥ 0", "Said in the field."),
        Setting(
            "ODD_WAIT_MS",
            "`90000` (90 s)",
            "whole number > 0, ≤ 100000",
            "Said above, in two lines.",
        ),
        Setting("ODD_NAME", "not set", "text not empty, or not set", "Said below."),
    ]
