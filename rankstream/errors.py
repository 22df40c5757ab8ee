"""The error tree. Every class has a code that crosses HTTP, gRPC and the dead letters intact.

RankstreamError
  InvalidInput                  the caller's to mend
    InvalidEvent
      MalformedEvent            bytes that are not an event
      UnknownKind
      EventTimeOutOfRange
      WrongPartition            its user belongs to another partition
    InvalidBatch                a record whose columns contradict each other
    InvalidRequest
    InvalidExperiment
    InvalidSettings
    InvalidArtifact             half-written, altered, or of another spec
    SpecMismatch
    TooLarge
  Unauthenticated               no known API key
  PermissionDenied              a key without the scope
  RateLimited                   a key over its rate: try again later
  NotFound
    UnknownExperiment
    UnknownAnswer
  Conflict                      the thing has changed, or is in another state
  Unavailable                   try again later
    QueueFull
    Overloaded                  more requests come than can be answered
    NotReady
    DependencyUnavailable
    Fenced                      another worker owns the partition now
    CannotListen                its port is taken, or not to be had
    TooManyDeadLetters          the stream is poisoned: a person must look

A message says what, the value with its unit, the limit, what was done, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class RankstreamError(Exception):
    """Something that rankstream refuses by name.

    `code` is stable and machine-readable; `retryable` says whether the same
    call may succeed later.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False


class InvalidInput(RankstreamError):
    code = "invalid_input"
    http_status = 422
    grpc_status = "INVALID_ARGUMENT"


class InvalidEvent(InvalidInput):
    code = "invalid_event"


class MalformedEvent(InvalidEvent):
    code = "malformed_event"
    http_status = 400


class UnknownKind(InvalidEvent):
    code = "unknown_kind"


class EventTimeOutOfRange(InvalidEvent):
    code = "event_time_out_of_range"


class WrongPartition(InvalidEvent):
    code = "wrong_partition"


class InvalidBatch(InvalidInput):
    code = "invalid_batch"


class InvalidRequest(InvalidInput):
    code = "invalid_request"


class InvalidExperiment(InvalidInput):
    code = "invalid_experiment"


class InvalidSettings(InvalidInput):
    code = "invalid_settings"


class InvalidArtifact(InvalidInput):
    code = "invalid_artifact"


class SpecMismatch(InvalidInput):
    code = "spec_mismatch"


class TooLarge(InvalidInput):
    code = "too_large"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class Unauthenticated(RankstreamError):
    code = "unauthenticated"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class PermissionDenied(RankstreamError):
    code = "permission_denied"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class RateLimited(RankstreamError):
    code = "rate_limited"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(RankstreamError):
    code = "not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"


class UnknownExperiment(NotFound):
    code = "unknown_experiment"


class UnknownAnswer(NotFound):
    code = "unknown_answer"


class Conflict(RankstreamError):
    code = "conflict"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class Unavailable(RankstreamError):
    code = "unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retryable = True


class QueueFull(Unavailable):
    code = "queue_full"


class Overloaded(Unavailable):
    code = "overloaded"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class NotReady(Unavailable):
    code = "not_ready"


class DependencyUnavailable(Unavailable):
    code = "dependency_unavailable"


class Fenced(Unavailable):
    code = "fenced"
    retryable = False


class CannotListen(Unavailable):
    code = "cannot_listen"
    retryable = False


class TooManyDeadLetters(Unavailable):
    code = "too_many_dead_letters"
    retryable = False
