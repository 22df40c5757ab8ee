"""How much of a stream is refused: over the limit its consumer stops, and a person must look."""

from __future__ import annotations

from rankstream.errors import TooManyDeadLetters


class DeadShare:
    """Refused events among the last `window_events` or more, counted window by window."""

    def __init__(self, *, share_max: float, window_events: int) -> None:
        self._share_max = share_max
        self._window_events = window_events
        self._events = 0
        self._refused = 0

    def add(self, events: int, refused: int) -> None:
        """Count a batch. Raises: TooManyDeadLetters at the end of a window over the limit."""
        self._events += events
        self._refused += refused
        if self._events < self._window_events:
            return
        share = self._refused / self._events
        if share > self._share_max:
            raise TooManyDeadLetters(
                f"too_many_dead_letters: {self._refused} of {self._events} events refused"
                f" ({share:.3f}, limit {self._share_max:g}). Stopped; nothing of this batch is"
                " committed. Look into events.dead, mend the producer, and restart; or raise"
                " DEAD_SHARE_MAX of this service."
            )
        self._events = self._refused = 0
