"""The crontab's lines are lines of cron, and their commands exist and work."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipelines.orchestration.lake import ROOT, TABLES, a_tiny_lake, written

CRONTAB = ROOT / "pipelines" / "orchestration" / "cron" / "rankstream"

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@dataclass(frozen=True)
class Line:
    """When, as whom, what."""

    when: tuple[str, ...]
    user: str
    command: str


def crontab() -> tuple[dict[str, str], list[Line]]:
    """Variables and lines, read as cron does for /etc/cron.d."""
    variables, lines = {}, []
    for text in CRONTAB.read_text().splitlines():
        if not text.strip() or text.startswith("#"):
            continue
        setting = re.fullmatch(r"(\w+)\s*=\s*(.*)", text)
        if setting:
            variables[setting[1]] = setting[2]
            continue
        *when, user, command = text.split(None, 6)
        lines.append(Line(tuple(when), user, command))
    return variables, lines


def sh(command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env=variables | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_line_says_when_by_five_fields_within_their_ranges() -> None:
    _, lines = crontab()

    assert len(lines) == 3
    for line in lines:
        assert len(line.when) == 5
        for field, (least, greatest) in zip(line.when, RANGES, strict=True):
            assert field == "*" or least <= int(field) <= greatest, line
        assert line.user == "rankstream"
        # cron ends a command at a bare per cent sign.
        assert "%" not in line.command


@pytest.mark.parametrize("number", range(3))
def test_every_command_is_one_that_there_is(number: int, tmp_path: Path) -> None:
    variables, lines = crontab()
    here = {"HOME_OF": str(ROOT), "PYTHON": sys.executable}
    locks = {name: str(tmp_path / name) for name in ("BATCH", "ARTIFACTS")}

    done = sh(lines[number].command + " --help", variables | here | locks)

    assert done.returncode == 0, done.stderr
    named = set(re.findall(r"--[a-z-]+", lines[number].command))
    assert named <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_the_daily_line_writes_what_is_due(tmp_path: Path) -> None:
    variables, lines = crontab()
    lake, out = a_tiny_lake(tmp_path), tmp_path / "batch"
    here = {"HOME_OF": str(ROOT), "PYTHON": sys.executable, "LAKE": str(lake), "BATCH": str(out)}

    done = sh(lines[0].command, variables | here)

    assert done.returncode == 0, done.stderr
    assert written(out) == TABLES
