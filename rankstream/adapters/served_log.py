"""Find the record of one answer in topic `served`."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.adapters.log_reader import LogReader
from rankstream.pb.events_pb2 import ServedSlate

RECORDS_PER_POLL: Final = 5_000
POLL_S: Final = 1.0


async def find_served(kafka_url: str, request_id: str) -> bytes | None:
    """The first record of an answer, as far as the topic reaches back; None if it has none.

    Reads the topic from its start: its key is the user, whom a request id does not name.

    Raises: DependencyUnavailable.
    """
    reader = LogReader(kafka_url, [topics.SERVED.name], client_id="rankstream-find", gather_ms=100)
    wanted = request_id.encode()
    try:
        while True:
            for record in await reader.poll(RECORDS_PER_POLL, POLL_S):
                body = record.value or b""
                if wanted in body and _request_id(body) == request_id:
                    return body
            if reader.caught_up:
                return None
    finally:
        await reader.close()


def _request_id(body: bytes) -> str:
    try:
        return ServedSlate.FromString(body).request_id
    except DecodeError:
        return ""
