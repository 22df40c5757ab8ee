"""docs/access.md says what the code asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.services import SERVICES, Ports, service_ports
from services.ranker.app import SCOPES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "access.md").read_text()


def test_every_call_of_the_ranker_stands_beside_its_scope() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ranker:")]

    for method, scope in SCOPES.items():
        (row,) = [row for row in rows if f"`{method}`" in row]
        assert row.endswith(f"| `{scope}` |")


@pytest.mark.parametrize("service", SERVICES)
def test_the_ports_of_a_service_stand_where_they_belong(service: str) -> None:
    head = TEXT.index("| service | public port")
    rows = [line.split("|") for line in TEXT[head:].split("\n\n")[0].splitlines()]
    (cells,) = [cells for cells in rows if service in cells[1].replace(",", " ").split()]

    ports = service_ports(service, Ports())
    public = {"PORT", "GRPC_PORT"} if "ADMIN_PORT" in ports else set()
    for setting, port in ports.items():
        assert (str(port) in cells[2], str(port) in cells[3]) == (
            setting in public,
            setting not in public,
        )
