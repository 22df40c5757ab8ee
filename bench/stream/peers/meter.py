"""The processor time of this process, from the first event to the last."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Meter:
    """Counts; at the first and the last of `expected` calls it looks at the clocks."""

    def __init__(self, expected: int, out: Path) -> None:
        self._expected = expected
        self._out = out
        self.seen = 0
        self._first = (0.0, 0.0)

    def add(self) -> None:
        """One event has been through one of the parts that are counted."""
        self.seen += 1
        if self.seen == 1:
            self._first = _clocks()
        if self.seen == self._expected:
            self.finish()

    def finish(self) -> None:
        """Write what it took."""
        cpu_s, wall_s = (last - first for last, first in zip(_clocks(), self._first, strict=True))
        scratch = self._out.with_suffix(".tmp")
        scratch.write_text(json.dumps({"seen": self.seen, "cpu_s": cpu_s, "wall_s": wall_s}))
        scratch.replace(self._out)


def _clocks() -> tuple[float, float]:
    times = os.times()
    return sum(times[:4]), time.monotonic()
