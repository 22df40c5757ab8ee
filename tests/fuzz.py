"""What fuzz tests of both transports share: bad values, a loop to call in, and what a reply is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rankstream import errors
from rankstream.pb import filter_pb2

ANSWER_WITHIN_S: Final = 5.0
# Words that only the inside of the process has; names of .proto messages are public.
INTERNALS: Final = re.compile(
    r"Traceback|File \"|site-packages|\.py\b|/(?:tmp|usr|home|root|work|var|opt)/|services\."
    r"|rankstream\.(?!v1\.)|google\.protobuf|numpy|pydantic|starlette|object at 0x|Error\("
)

T = TypeVar("T")

# Protobuf and JSON take no lone surrogates as text; all else is fair.
TEXT: Final = st.one_of(
    st.sampled_from(
        ["", "u1", "i1", "i2", "drama", " ", "\x00", "\x1f", "\u202e", "../etc", "%00"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from([64, 65, 128, 129, 256, 257, 1_024, 1_025, 70_000]).map(lambda n: "x" * n),
    st.sampled_from([86, 171, 342]).map(lambda n: "\u20ac" * n),  # three bytes each
)
INT32: Final = st.one_of(
    st.integers(-2, 60), st.sampled_from([-(2**31), 2**31 - 1]), st.integers(-(2**31), 2**31 - 1)
)
DOUBLE: Final = st.one_of(
    st.floats(),  # with nan, inf and subnormal numbers
    st.floats(-200.0, 200.0),
    st.sampled_from([0.0, -0.0, 90.0, 180.0, -180.0, 1e-300, 1e300, 20_100.0]),
)
TEXTS: Final = st.lists(TEXT, max_size=4)
_PRICE: Final = st.builds(filter_pb2.PriceRange, min=st.none() | DOUBLE, max=st.none() | DOUBLE)
PLACE: Final = st.builds(filter_pb2.Place, latitude=DOUBLE, longitude=DOUBLE)
_NEAR: Final = st.builds(filter_pb2.GeoRadius, latitude=DOUBLE, longitude=DOUBLE, radius_km=DOUBLE)
FILTER: Final = st.builds(
    filter_pb2.ItemFilter,
    categories=TEXTS,
    price=st.none() | _PRICE,
    near=st.none() | _NEAR,
    item_ids=TEXTS,
)


def subclasses(cls: type[errors.RankstreamError]) -> Iterator[type[errors.RankstreamError]]:
    """All below a class."""
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


NAMED: Final = {cls.code: cls for cls in subclasses(errors.RankstreamError)}


def mangled(messages: st.SearchStrategy[Message]) -> st.SearchStrategy[bytes]:
    """Bytes that were a message before something cut, doubled or overwrote a part of them."""

    def broken(message: Message, at: int, junk: bytes, cut: bool) -> bytes:
        body = message.SerializeToString()
        place = at % (len(body) + 1)
        return body[:place] + junk + (b"" if cut else body[place + len(junk) // 2 :])

    return st.builds(
        broken, messages, st.integers(0, 10_000), st.binary(max_size=12), st.booleans()
    )


def fuzzing(examples: int) -> settings:
    """Settings for so many examples, the same ones in every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Loop:
    """One event loop for the examples of a module."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. Raises: TimeoutError if it hangs."""

        async def in_time() -> T:
            async with asyncio.timeout(2 * ANSWER_WITHIN_S):
                return await work

        return self._runner.run(in_time())

    def close(self) -> None:
        self._runner.close()


async def status_of(call: Any, body: bytes, timeout_s: float = ANSWER_WITHIN_S) -> str:
    """ "ok", the code of a named refusal, or "deadline" of a call that had less than it takes.

    `call` takes bytes. Fails if the refusal has no name, another status than its name, or tells
    of the inside.
    """
    told = await refusal_of(call(body, timeout=timeout_s))
    if told is None:
        return "ok"
    status, code, message = told
    if timeout_s < ANSWER_WITHIN_S and status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "deadline"
    assert code in NAMED, (status, message)
    assert status is grpc.StatusCode[NAMED[code].grpc_status], (code, message)
    assert status not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert message.startswith(f"{code}: "), message
    assert not INTERNALS.search(message), message
    return code


async def refusal_of(call: Any) -> tuple[grpc.StatusCode, str, str] | None:
    """Status, error code and message of a refused call; None of an answered one."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        code = dict(tuple(error.trailing_metadata() or ())).get("error-code")
        return error.code(), str(code), error.details() or ""
    return None
