"""Work that no answer waits for: it gets the processor when answers leave it, and not instead.

A thread of the same priority takes half of a core, and Python's lock for 5 ms at a time, of which
an answer asks several times: a new index for 100,000 items made p99 132 ms of 11 ms.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

NICENESS: Final = 19

P = ParamSpec("P")
T = TypeVar("T")


def thread_behind(name: str) -> ThreadPoolExecutor:
    """One thread of the lowest priority; on Linux niceness is a thread's own."""
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=os.nice, initargs=(NICENESS,))


_LOADING: Final = thread_behind("loading")


async def loaded_behind(load: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `load` gives, and raises: one at a time in the process, in the order of the calls."""
    loading = _LOADING.submit(load, *args, **named)
    return await asyncio.wrap_future(loading)
