"""What can go wrong with a measurement, by name."""

from __future__ import annotations


class MeasurementFailed(Exception):
    """A run did not do what is being measured: nothing is written for it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"measurement_failed: {message}")
