"""The plan of a fault run."""

from __future__ import annotations

from collections import Counter

from tests.chaos.faults import BROKER, DISK, JOIN, KILL, LEAVE, REDIS, plan


def test_a_plan_has_every_fault_in_order_of_its_place_in_the_log() -> None:
    faults = plan(1, kills=20, moves=5)

    assert Counter(fault.kind for fault in faults) == {
        KILL: 20,
        JOIN: 3,
        LEAVE: 2,
        BROKER: 1,
        REDIS: 1,
        DISK: 1,
    }
    assert [fault.share for fault in faults] == sorted(fault.share for fault in faults)
    assert 0 < faults[0].share < faults[-1].share < 1


def test_a_worker_joins_before_it_leaves() -> None:
    moves = [fault.kind for fault in plan(7, kills=3, moves=4) if fault.kind in (JOIN, LEAVE)]

    assert moves == [JOIN, LEAVE, JOIN, LEAVE]


def test_a_plan_is_a_function_of_the_seed() -> None:
    assert plan(3, kills=5, moves=2) == plan(3, kills=5, moves=2)
    assert plan(3, kills=5, moves=2) != plan(4, kills=5, moves=2)
