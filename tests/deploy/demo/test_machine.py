"""Who had the processors while people asked."""

from __future__ import annotations

import os
import time

import pytest

from deploy.local.demo.machine import CpuSeen, cores_used, cpu_seen


def test_what_neither_the_system_nor_the_host_took_is_of_others() -> None:
    cores = cores_used(CpuSeen(10.0, 4.0, 20.0, 1.0), CpuSeen(20.0, 15.0, 36.0, 3.0))

    assert (cores.system, cores.others, cores.stolen) == pytest.approx((1.1, 0.5, 0.2))


def test_work_of_a_process_is_seen_as_others_until_it_is_of_the_system() -> None:
    before = cpu_seen(0.0)
    began = time.process_time()
    while time.process_time() - began < 0.5:
        pass
    after = cpu_seen(0.0)

    cores = cores_used(before, after)
    assert cores.all == os.cpu_count()
    assert cores.others * (after.at - before.at) > 0.4
    assert cores.system + cores.others + cores.stolen < cores.all + 0.1
