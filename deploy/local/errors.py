"""What can go wrong with the local runtime, by name.

LocalError
  ProvisioningFailed    a tool could not be brought in
  ChecksumMismatch      a download is not the file that the lock names
  PortTaken             another program listens where one of ours should
  StartFailed           a process ended, or was not ready in time
  StopFailed            a process outlived SIGKILL
  Busy                  another `up` or `down` is at work in this checkout

A message says what, the value, what was done, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class LocalError(Exception):
    """Something that the local runtime refuses by name."""

    code: ClassVar[str] = "local_error"

    def __init__(self, message: str) -> None:
        super().__init__(f"{self.code}: {message}")


class ProvisioningFailed(LocalError):
    code = "provisioning_failed"


class ChecksumMismatch(LocalError):
    code = "checksum_mismatch"


class PortTaken(LocalError):
    code = "port_taken"


class StartFailed(LocalError):
    code = "start_failed"


class StopFailed(LocalError):
    code = "stop_failed"


class Busy(LocalError):
    code = "busy"
