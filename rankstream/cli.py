"""The `rankstream` command: what a person does with the client, and with dead letters.

Output for people on stdout; with --json, one JSON document. Refusals go to stderr, exit code 1.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.progress import wrap_file
from rich.table import Table

from rankstream import topics
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.client import EXPERIMENTS_URL, INGEST_URL, RANKER_TARGET, Client, SendResult
from rankstream.contracts.codec import decode_batch, encode_batch, event_at
from rankstream.contracts.events import Event
from rankstream.errors import InvalidInput, NotFound, RankstreamError
from rankstream.pb import events_pb2 as pb

app = typer.Typer(no_args_is_help=True, help="Rankstream from the command line.")
dead = typer.Typer(no_args_is_help=True, help="What was refused: look, and send it again.")
app.add_typer(dead, name="dead")

# No markup: what events and errors say is data.
out = Console(markup=False, highlight=False)
err = Console(stderr=True, markup=False, highlight=False)

JSON_TYPE = "application/json"
_POLL_RECORDS = 1_000
_POLL_S = 0.5
_WHY_CHARACTERS = 120


@dataclass(frozen=True)
class Addresses:
    """Where the services are."""

    ingest_url: str
    ranker_target: str
    experiments_url: str
    kafka_url: str


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Code = Annotated[str, typer.Option("--code", help="Only letters with this error code.")]


@app.callback()
def addresses(
    context: typer.Context,
    ingest_url: Annotated[str, typer.Option(envvar="RANKSTREAM_INGEST_URL")] = INGEST_URL,
    ranker_target: Annotated[str, typer.Option(envvar="RANKSTREAM_RANKER_TARGET")] = RANKER_TARGET,
    experiments_url: Annotated[
        str, typer.Option(envvar="RANKSTREAM_EXPERIMENTS_URL")
    ] = EXPERIMENTS_URL,
    kafka_url: Annotated[str, typer.Option(envvar="RANKSTREAM_KAFKA_URL")] = "127.0.0.1:9092",
) -> None:
    """Addresses come from options or RANKSTREAM_* variables."""
    context.obj = Addresses(ingest_url, ranker_target, experiments_url, kafka_url)


def _client(context: typer.Context) -> Client:
    to: Addresses = context.obj
    return Client(to.ingest_url, to.ranker_target, to.experiments_url)


@contextmanager
def _refusals() -> Iterator[None]:
    """A named error becomes its message on stderr and exit code 1."""
    try:
        yield
    except RankstreamError as error:
        err.print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(1) from None


def _print_json(value: object) -> None:
    out.print(json.dumps(value, indent=2), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold")


def _time(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@app.command()
def send(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="NDJSON events.")],
    as_json: AsJson = False,
) -> None:
    """Send the events of a file, one JSON event a line."""
    with _refusals(), _client(context) as client, file.open("rb") as lines:
        size = file.stat().st_size
        with wrap_file(lines, size, description=file.name, console=err, transient=True) as read:
            result = client.send_lines(read)
    if as_json:
        _print_json(dataclasses.asdict(result))
    else:
        _print_sent(result)
    if result.rejected:
        raise typer.Exit(1)


def _print_sent(result: SendResult) -> None:
    out.print(f"{result.accepted} events accepted, {result.rejected} rejected")
    if result.rejections:
        table = _table("Rejected (kept as dead letters)", "line", "code", "event", "why")
        for refused in result.rejections[:20]:
            table.add_row(str(refused.index + 1), refused.code, refused.event_id, refused.message)
        out.print(table)


@app.command()
def recommend(
    context: typer.Context,
    user_id: str,
    n: Annotated[int, typer.Option("-n", help="Items; 0: the server's default.")] = 0,
    preview: Annotated[bool, typer.Option(help="Log neither a slate nor an exposure.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user."""
    with _refusals(), _client(context) as client:
        answer = client.recommend(user_id, n=n, preview=preview)
    _print_ranking(dataclasses.asdict(answer), f"For {user_id}", as_json=as_json)


@app.command()
def rank(
    context: typer.Context,
    user_id: str,
    item_ids: list[str],
    preview: Annotated[bool, typer.Option(help="Log neither a slate nor an exposure.")] = False,
    as_json: AsJson = False,
) -> None:
    """Order the given items for a user."""
    with _refusals(), _client(context) as client:
        answer = client.rank(user_id, item_ids, preview=preview)
    _print_ranking(dataclasses.asdict(answer), f"For {user_id}", as_json=as_json)


def _print_ranking(answer: dict[str, Any], title: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(answer)
        return
    table = _table(title, "#", "item", "category", "score", "propensity")
    for slot, item in enumerate(answer["items"], 1):
        numbers = (f"{item['score']:.4f}", f"{item['propensity']:.3g}")
        table.add_row(str(slot), item["item_id"], item["category"], *numbers)
    out.print(table)
    named = ("request_id", "model_id", "index_id", "experiment_id", "variant", "candidates")
    _print_named({name: answer[name] for name in named})
    for name in ("degraded", "unknown_item_ids"):
        if answer[name]:
            out.print(f"{name}: {', '.join(answer[name])}", style="yellow")


def _print_named(values: dict[str, object]) -> None:
    text = "  ".join(f"{name}={value}" for name, value in values.items() if value not in ("", 0))
    out.print(text, style="dim", soft_wrap=True)


@app.command()
def scorecard(
    context: typer.Context,
    experiment_id: str,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.4999)] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Show an experiment's scorecard; its intervals hold at any look."""
    with _refusals(), _client(context) as client:
        card = client.scorecard(experiment_id, alpha=alpha)
    if as_json:
        _print_json(card.model_dump(mode="json"))
        return
    totals = _table(
        f"{card.experiment_id} (version {card.version})",
        *("variant", "units", "impressions", "clicks", "purchases"),
    )
    for arm in card.variants:
        counts = (arm.units, arm.impressions, arm.clicks, arm.purchases)
        totals.add_row(arm.variant, *(f"{count:,}" for count in counts))
    out.print(totals)
    interval = f"{100 * (1 - card.alpha):g}% at any look"
    lifts = _table("Lift", "metric", "treatment", "lift", interval, "verdict")
    for found in card.estimates:
        span = f"{_percent(found.low)} .. {_percent(found.high)}"
        lifts.add_row(found.metric, found.treatment, _percent(found.lift), span, found.verdict)
    out.print(lifts)
    out.print(f"SRM: {card.srm.verdict} (p={card.srm.p_value:.3g})")
    if card.flags:
        out.print(f"flags: {', '.join(card.flags)}", style="yellow")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.2f}%"


@app.command()
def explain(context: typer.Context, request_id: str, as_json: AsJson = False) -> None:
    """Say why a past answer was what it was."""
    with _refusals(), _client(context) as client:
        answer = client.explain(request_id)
    if as_json:
        _print_json(dataclasses.asdict(answer))
        return
    title = f"{answer.request_id}: for {answer.user_id}, {_time(answer.served_time_ms)}"
    table = _table(title, "#", "item", "pctr", "propensity", "what moved its logit most")
    for slot, item in enumerate(answer.items, 1):
        why = ", ".join(
            f"{c.feature}={c.value:g} {c.contribution:+.3f}" for c in item.contributions[:4]
        )
        table.add_row(str(slot), item.item_id, f"{item.pctr:.4f}", f"{item.propensity:.3g}", why)
    out.print(table)
    named = ("model_id", "index_id", "spec_id", "experiment_id", "variant", "method")
    _print_named({name: getattr(answer, name) for name in named})
    if answer.degraded:
        out.print(f"degraded: {', '.join(answer.degraded)}", style="yellow")


async def read_letters(kafka_url: str) -> list[pb.DeadLetter]:
    """All dead letters in the log, oldest first."""
    reader = LogReader(kafka_url, [topics.EVENTS_DEAD.name], client_id="rankstream-cli")
    letters: list[pb.DeadLetter] = []
    try:
        while not reader.caught_up:
            for record in await reader.poll(_POLL_RECORDS, _POLL_S):
                try:
                    letters.append(pb.DeadLetter.FromString(record.value or b""))
                except DecodeError:
                    err.print(f"events.dead offset {record.offset} is no DeadLetter; passed over")
    finally:
        await reader.close()
    return letters


def _matching(context: typer.Context, code: str, letter_id: str) -> list[pb.DeadLetter]:
    letters = asyncio.run(read_letters(context.obj.kafka_url))
    found = [
        letter
        for letter in letters
        if code in ("", letter.code) and letter_id in ("", letter.dead_letter_id)
    ]
    if letter_id and not found:
        raise NotFound(
            f"not_found: no dead letter {letter_id}. See `rankstream dead list` for those kept."
        )
    return found


def _as_dict(letter: pb.DeadLetter) -> dict[str, Any]:
    known = {field.name: getattr(letter, field.name) for field in letter.DESCRIPTOR.fields}
    # Bytes as text that holds each of them: Latin-1 escapes survive a round trip.
    texts = {name: known[name].decode("latin-1") for name in ("original", "original_key")}
    return known | texts | {"rows": list(letter.rows)}


@dead.command("list")
def list_letters(
    context: typer.Context,
    code: Code = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest last."""
    with _refusals():
        letters = _matching(context, code, "")
    if as_json:
        _print_json([_as_dict(letter) for letter in letters[-limit:]])
        return
    table = _table("Dead letters")
    table.add_column("id", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("why")
    for letter in letters[-limit:]:
        why = letter.reason.removeprefix(f"{letter.code}: ")
        table.add_row(letter.dead_letter_id, letter.code, why[:_WHY_CHARACTERS])
    out.print(table)
    counts = Counter(letter.code for letter in letters)
    out.print(f"{len(letters)} in all: {dict(counts)}")


@dead.command("show")
def show_letter(context: typer.Context, letter_id: str, as_json: AsJson = False) -> None:
    """Show a dead letter with its original bytes."""
    with _refusals():
        (letter, *_) = _matching(context, "", letter_id)
    if as_json:
        _print_json(_as_dict(letter))
        return
    for name, value in _as_dict(letter).items():
        out.print(f"{name:>15}  {value!r}", soft_wrap=True)


@dead.command("replay")
def replay(
    context: typer.Context,
    code: Code = "",
    letter_id: Annotated[str, typer.Option("--id", help="Only this letter.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send refused events again, to where they were going. Safe to repeat: event ids dedupe."""
    with _refusals():
        letters = _matching(context, code, letter_id)
        rows = asyncio.run(_replay(context, letters, dry_run=dry_run))
    if as_json:
        _print_json(rows)
    else:
        table = _table("Would replay" if dry_run else "Replayed", "id", "code", "what was done")
        for row in rows:
            table.add_row(row["id"], row["code"], row["done"])
        out.print(table)
    if any(row["refused"] for row in rows):
        raise typer.Exit(1)


async def _replay(
    context: typer.Context, letters: Sequence[pb.DeadLetter], *, dry_run: bool
) -> list[dict[str, Any]]:
    to: Addresses = context.obj
    done: list[dict[str, Any]] = []
    log = EventProducer(to.kafka_url, client_id="rankstream-cli")
    with _client(context) as client:
        for letter in letters:
            try:
                what, refused = await _send_again(letter, client, log, dry_run=dry_run)
            except InvalidInput as error:
                what, refused = f"still refused: {error}", letter.events
            row = {"id": letter.dead_letter_id, "code": letter.code}
            done.append(row | {"done": what, "refused": refused})
    await log.flush_and_close()
    return done


async def _send_again(
    letter: pb.DeadLetter, client: Client, log: EventProducer, *, dry_run: bool
) -> tuple[str, int]:
    """What was done with one letter, and how many of its events are refused still."""
    if letter.content_type == JSON_TYPE:
        if dry_run:
            return f"{letter.events} JSON event(s) to ingest", 0
        result = await asyncio.to_thread(client.send_body, letter.original)
        why = "".join(f"; {refused.message}" for refused in result.rejections[:3])
        return f"{result.accepted} accepted, {result.rejected} rejected by ingest{why}", (
            result.rejected
        )
    record, events, refused = mended_record(letter)
    what = f"{events} event(s) to {letter.topic}[{letter.partition}]"
    if refused:
        what += f"; {len(refused)} still refused: {refused[0]}"
    if record and not dry_run:
        await log.send(letter.topic, record, partition=letter.partition)
    return what, len(refused)


def mended_record(letter: pb.DeadLetter) -> tuple[bytes, int, list[str]]:
    """A record of the letter's refused rows that fit the contract now.

    Returns: its bytes (b"" if no row fits), how many events it has, and why each other row does
        not fit. A letter without rows was refused whole and is sent whole.
    Raises: InvalidBatch if the original is no EventBatch.
    """
    columns = decode_batch(letter.original)
    if not letter.rows:
        return letter.original, len(columns), []
    events: list[Event] = []
    refused: list[str] = []
    for row in letter.rows:
        try:
            events.append(event_at(columns, row))
        except InvalidInput as error:
            refused.append(str(error))
    return encode_batch(events) if events else b"", len(events), refused
