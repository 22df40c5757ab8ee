"""The demo's loop on real data, end to end, with less traffic than the demo has."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deploy.local.demo.command import fresh_state
from deploy.local.demo.loop import FEATURES_ENVIRON, Loop, Options
from deploy.local.demo.verdict import PERFORMANCE, checks
from deploy.local.report import Silent
from deploy.local.services import Ports
from deploy.local.system import System
from deploy.local.tools import Tools

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_loop_loses_no_event_serves_no_skew_and_covers_the_truth(
    tools: Tools, tmp_path: Path
) -> None:
    # The tools of the checkout, which the fixture has brought in; everything else apart from it.
    (tmp_path / "tools").symlink_to(ROOT / ".run" / "tools")
    system = System(ROOT, Ports.free(), run=tmp_path, environ={"features": FEATURES_ENVIRON})
    options = Options(exit=True, seconds=20.0, rate=30.0, seed=7)
    fresh_state(system)

    try:
        run = Loop(system, options, Silent(), started_at_s=time.time(), first=False).measure()
    finally:
        system.down(Silent())

    failed = [c for c in checks(run) if not c.passed and c.name not in PERFORMANCE]
    assert failed == []
    assert run.events.duplicates > 0
    assert run.skew.slates > 400
    assert not system.processes.running()
