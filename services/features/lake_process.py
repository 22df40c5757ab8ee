"""The process that writes the lake's tables, apart from the fold's interpreter and priority.

A flush takes a second or two of what it gets; in a thread it held up every record meanwhile.
`LakeProcess` is the parent's end; `python -m services.features.lake_process FD FOLDER`, the child,
answers calls that come over the socket FD until that closes. A child is replaced after CALLS_MAX
calls: a Delta merge leaves some 0.1 MB behind in its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Final

from rankstream.errors import DependencyUnavailable, RankstreamError

MODULE: Final = "services.features.lake_process"
NICENESS: Final = 10
STOP_TIMEOUT_S: Final = 10.0
CALLS_MAX: Final = 100

Call = tuple[str, str, tuple[Any, ...]]  # table, method of DeltaLog, arguments


class LakeProcess:
    """Calls `lake_delta.DeltaLog` of a table in the child, one call at a time.

    The child starts with the first call; one that ended starts again with the next.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._calls = 0  # of this child
        self._waits = ThreadPoolExecutor(1, thread_name_prefix="lake")

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return None if self._child is None else self._child.pid

    async def call(self, table: str, method: str, *args: Any) -> Any:
        """What the method answers.

        Raises:
            RankstreamError: what the method raised.
            DependencyUnavailable: the child ended; whether it had committed, the table says.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._waits, self._call, (table, method, args))

    def _call(self, call: Call) -> Any:
        if self._calls >= CALLS_MAX:
            self._end()
        if self._connection is None:
            self._connection = self._start()
        self._calls += 1
        try:
            self._connection.send(call)
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise DependencyUnavailable(
                f"dependency_unavailable: the lake's process ended with code {self._end()}."
                " It starts again and goes on where the tables say."
            ) from None
        if isinstance(answer, RankstreamError):
            raise answer
        return answer

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = (sys.executable, "-m", MODULE, str(fd), self._folder)
            self._child = subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.DEVNULL)
        self._calls = 0
        return Connection(ours.detach())

    def _end(self) -> int | None:
        """Close our end; the code that the child ends with then."""
        connection, self._connection = self._connection, None
        child, self._child = self._child, None
        if connection is None or child is None:
            return None
        connection.close()
        try:
            return child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    async def close(self) -> None:
        """End the child, after the call in hand. Safe to call again."""
        await asyncio.get_running_loop().run_in_executor(self._waits, self._end)


def main(fd: int, folder: str) -> None:
    """Answer calls until the parent closes its end or dies; at once then, whatever is in hand."""
    # Imported here: the parent has no use for what writes tables.
    from services.features.lake_delta import DeltaLog
    from services.features.lake_rows import TABLES

    for name in (signal.SIGINT, signal.SIGTERM):
        # The parent flushes when it is told to end, and needs us for it.
        signal.signal(name, signal.SIG_IGN)
    os.nice(NICENESS)
    connection = Connection(fd)
    calls: SimpleQueue[Call] = SimpleQueue()

    def receive() -> None:
        try:
            while True:
                calls.put(connection.recv())
        except (EOFError, OSError):
            # Nobody hears of a commit any more, and another worker may own the partition soon.
            os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    known = {table.topic: table for table in TABLES}
    logs: dict[str, DeltaLog] = {}
    while True:
        table, method, args = calls.get()
        try:
            if table not in logs:
                # A child before us may have been told to open it.
                log = DeltaLog(folder, known[table])
                log.open(())
                logs[table] = log
            answer = getattr(logs[table], method)(*args)
        except RankstreamError as error:
            answer = error
        connection.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
