"""`rankstream reproduce`: a past answer made again, and compared to the last bit."""

from __future__ import annotations

import asyncio
import dataclasses

import typer

from rankstream.adapters.served_log import find_served
from rankstream.cli.console import AsJson, client_of, err, out, print_json, refusals
from rankstream.client import Reproduction
from rankstream.errors import UnknownAnswer


def reproduce(context: typer.Context, request_id: str, as_json: AsJson = False) -> None:
    """Score and choose again what a past answer held; exit code 1 if anything differs.

    The ranker keeps answers for RANKER_ANSWER_TTL_S; older ones are looked for in topic served.
    """
    with refusals():
        found = _found(context, request_id)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        out.print(
            f"{found.request_id}: {found.items} of {found.candidates} candidates, model"
            f" {found.model_id} ({found.model_sha256[:12]}, trained on {found.data_version}),"
            f" policy {found.policy} ({found.policy_hash})",
            soft_wrap=True,
        )
        for difference in found.differences:
            err.print(f"{difference.code}: {difference.detail}", style="red", soft_wrap=True)
        if not found.differences:
            out.print("equal: scores, slate, propensities and steps, to the last bit")
    if found.differences:
        raise typer.Exit(1)


def _found(context: typer.Context, request_id: str) -> Reproduction:
    with client_of(context) as client:
        try:
            return client.reproduce(request_id)
        except UnknownAnswer:
            record = asyncio.run(find_served(context.obj.kafka_url, request_id))
            if record is None:
                raise
            return client.reproduce(request_id, record=record)
