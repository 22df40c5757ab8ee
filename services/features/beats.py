"""When the partitions of a worker fold, all together, and when they dump, each at its own time.

Records that partitions fold at the same beat go to Kafka and Redis in the same few turns of the
loop, and what they have sent to the other stage is there when that one's beat comes.
"""

from __future__ import annotations

from typing import Final

# Multiples of it, modulo 1, lie apart however many are taken (Knuth, TAOCP 3, section 6.4).
GOLDEN: Final = 0.6180339887498949


def until_beat_s(now_s: float, period_s: float, beat: float) -> float:
    """How long until the next beat, in (0, period_s]; 0 if there is no period.

    now_s: of a clock that all partitions share. beat: where it lies in a period, in [0, 1).
    """
    return period_s - (now_s - beat * period_s) % period_s if period_s else 0.0


def first_snapshot_s(partition: int, every_s: float, beat: float) -> float:
    """How long after its opening a partition dumps first, in [0, every_s); then every `every_s`.

    Partitions open together: without this they would all be held up together.
    """
    return 2 * (partition + beat) * GOLDEN % 1.0 * every_s
