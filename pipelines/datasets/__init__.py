"""Public logs as our events: everything downstream runs unchanged."""
