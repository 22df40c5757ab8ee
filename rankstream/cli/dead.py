"""`rankstream dead`: what was refused, and sending it again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rankstream import topics
from rankstream.adapters.dead_letters import (
    Kept,
    Sending,
    append,
    mended,
    newest_items,
    note,
    read_letters,
)
from rankstream.adapters.kafka import EventProducer
from rankstream.cli.console import (
    Addresses,
    AsJson,
    client_of,
    err,
    out,
    print_json,
    refusals,
    table,
    time_of,
)
from rankstream.client import Client
from rankstream.errors import NotFound
from rankstream.pb import events_pb2 as pb
from rankstream.ports import EventLog

dead = typer.Typer(no_args_is_help=True, help="What was refused: look, and send it again.")

Code = Annotated[str, typer.Option("--code", help="Only letters with this error code.")]
_WHY_CHARACTERS = 120


def _letters(context: typer.Context, code: str, letter_id: str) -> list[Kept]:
    found = asyncio.run(read_letters(context.obj.kafka_url))
    for offset in found.unreadable:
        err.print(f"events.dead offset {offset} is no DeadLetter; passed over")
    matching = [
        kept
        for kept in found.letters
        if code in ("", kept.letter.code) and letter_id in ("", kept.letter.dead_letter_id)
    ]
    if letter_id and not matching:
        raise NotFound(
            f"not_found: no dead letter {letter_id}. See `rankstream dead list` for those kept."
        )
    return matching


def _as_dict(kept: Kept) -> dict[str, Any]:
    letter = kept.letter
    known = {field.name: getattr(letter, field.name) for field in letter.DESCRIPTOR.fields}
    # Bytes as text that holds each of them: Latin-1 escapes survive a round trip.
    texts = {name: known[name].decode("latin-1") for name in ("original", "original_key")}
    del known["replay"]
    return (
        known
        | texts
        | {
            "rows": list(letter.rows),
            "headers": [[header.name, header.value.decode("latin-1")] for header in letter.headers],
            "replays": [dataclasses.asdict(replay) for replay in kept.replays],
        }
    )


@dead.command("list")
def list_letters(
    context: typer.Context,
    code: Code = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    open_only: Annotated[bool, typer.Option("--open", help="Only those never sent again.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest last."""
    with refusals():
        letters = _letters(context, code, "")
    if open_only:
        letters = [kept for kept in letters if not kept.replays]
    if as_json:
        print_json([_as_dict(kept) for kept in letters[-limit:]])
        return
    printed = table("Dead letters")
    printed.add_column("id", no_wrap=True)
    printed.add_column("code", no_wrap=True)
    printed.add_column("sent again", no_wrap=True)
    printed.add_column("why")
    for kept in letters[-limit:]:
        letter = kept.letter
        why = letter.reason.removeprefix(f"{letter.code}: ")
        again = time_of(kept.replays[-1].time_ms) if kept.replays else ""
        printed.add_row(letter.dead_letter_id, letter.code, again, why[:_WHY_CHARACTERS])
    out.print(printed)
    counts = Counter(kept.letter.code for kept in letters)
    replayed = sum(bool(kept.replays) for kept in letters)
    out.print(f"{len(letters)} in all, {replayed} sent again: {dict(counts)}")


@dead.command("show")
def show_letter(context: typer.Context, letter_id: str, as_json: AsJson = False) -> None:
    """Show a dead letter with its original bytes and headers, and what became of it."""
    with refusals():
        (kept, *_) = _letters(context, "", letter_id)
    if as_json:
        print_json(_as_dict(kept))
        return
    for name, value in _as_dict(kept).items():
        out.print(f"{name:>15}  {value!r}", soft_wrap=True)


@dead.command("replay")
def replay(
    context: typer.Context,
    code: Code = "",
    letter_id: Annotated[str, typer.Option("--id", help="Only this letter.")] = "",
    again: Annotated[bool, typer.Option(help="Also those that were sent again before.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send refused events again, to where they were going, and note it. Safe to repeat.

    What fits the contract now is sent, the rest is told. An event counts once, by its event_id. One
    that is behind the watermark by now is late: it reaches the lake, and changes nothing else.
    """
    with refusals():
        letters = [kept for kept in _letters(context, code, letter_id) if again or not kept.replays]
        rows = asyncio.run(_replay(context, [kept.letter for kept in letters], dry_run=dry_run))
    if as_json:
        print_json(rows)
    else:
        printed = table("Would replay" if dry_run else "Replayed", "id", "code", "what was done")
        for row in rows:
            printed.add_row(row["id"], row["code"], row["done"])
        out.print(printed)
    if any(row["refused"] for row in rows):
        raise typer.Exit(1)


async def _replay(
    context: typer.Context, letters: Sequence[pb.DeadLetter], *, dry_run: bool
) -> list[dict[str, Any]]:
    to: Addresses = context.obj
    if not letters:
        return []
    done: list[dict[str, Any]] = []
    newest = await newest_items(to.kafka_url, letters)
    log = EventProducer(to.kafka_url, client_id="rankstream-cli")
    try:
        partitions = await log.partitions(topics.EVENTS.name)
        with client_of(context) as client:
            for letter in letters:
                sending = mended(letter, partitions=partitions, newest_ms=newest)
                events, refused = sending.events, list(sending.refused)
                if not dry_run:
                    events, refused = await _send_again(letter, sending, client, log)
                row = {"id": letter.dead_letter_id, "code": letter.code}
                done.append(
                    row | {"done": _told(sending.to, events, refused), "refused": len(refused)}
                )
    finally:
        await log.flush_and_close()
    return done


def _told(to: str, events: int, refused: Sequence[str]) -> str:
    parts = [f"{events} event(s) to {to}" if events else to] if to else []
    return "; ".join(
        [*parts, *([f"{len(refused)} still refused: {refused[0]}"] if refused else [])]
    )


async def _send_again(
    letter: pb.DeadLetter, sending: Sending, client: Client, log: EventLog
) -> tuple[int, list[str]]:
    """Send it, and note that it was sent: how many events went, and why others did not."""
    events, refused = sending.events, list(sending.refused)
    if sending.bodies:
        # An array is one body, whatever blanks and newlines its events hold.
        body = b"[" + b",".join(sending.bodies) + b"]"
        result = await asyncio.to_thread(client.send_body, body)
        events = result.accepted
        refused += [rejection.message for rejection in result.rejections]
    await append(sending, letter, log)
    if sending.events:
        await note(letter, log, events=events, refused=len(refused), to=sending.to)
    return events, refused
