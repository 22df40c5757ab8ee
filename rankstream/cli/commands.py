"""The commands of a person who uses the client: send, ask, read scorecards, explain."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import wrap_file

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
from rankstream.cli.dead import dead
from rankstream.cli.keys import keys
from rankstream.cli.partitions import repartition
from rankstream.cli.reproduce import reproduce
from rankstream.client import (
    EXPERIMENTS_URL,
    INGEST_URL,
    RANKER_ADMIN_TARGET,
    RANKER_TARGET,
    PolicyStep,
    SendResult,
)

app = typer.Typer(no_args_is_help=True, help="Rankstream from the command line.")
app.add_typer(dead, name="dead")
app.add_typer(keys, name="keys")
app.command()(repartition)
app.command()(reproduce)


@app.callback()
def addresses(
    context: typer.Context,
    ingest_url: Annotated[str, typer.Option(envvar="RANKSTREAM_INGEST_URL")] = INGEST_URL,
    ranker_target: Annotated[str, typer.Option(envvar="RANKSTREAM_RANKER_TARGET")] = RANKER_TARGET,
    ranker_admin_target: Annotated[
        str, typer.Option(envvar="RANKSTREAM_RANKER_ADMIN_TARGET")
    ] = RANKER_ADMIN_TARGET,
    experiments_url: Annotated[
        str, typer.Option(envvar="RANKSTREAM_EXPERIMENTS_URL")
    ] = EXPERIMENTS_URL,
    kafka_url: Annotated[str, typer.Option(envvar="RANKSTREAM_KAFKA_URL")] = "127.0.0.1:9092",
    # From the environment only: a command line can be read by everybody on the machine.
    api_key: Annotated[str, typer.Option(envvar="RANKSTREAM_API_KEY", hidden=True)] = "",
) -> None:
    """Addresses come from options or RANKSTREAM_* variables."""
    context.obj = Addresses(
        ingest_url, ranker_target, ranker_admin_target, experiments_url, kafka_url, api_key
    )


@app.command()
def send(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="NDJSON events.")],
    as_json: AsJson = False,
) -> None:
    """Send the events of a file, one JSON event a line."""
    with refusals(), client_of(context) as client, file.open("rb") as lines:
        size = file.stat().st_size
        with wrap_file(lines, size, description=file.name, console=err, transient=True) as read:
            result = client.send_lines(read)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        _print_sent(result)
    if result.rejected:
        raise typer.Exit(1)


def _print_sent(result: SendResult) -> None:
    out.print(f"{result.accepted} events accepted, {result.rejected} rejected")
    if result.rejections:
        printed = table("Rejected (kept as dead letters)", "line", "code", "event", "why")
        for refused in result.rejections[:20]:
            printed.add_row(str(refused.index + 1), refused.code, refused.event_id, refused.message)
        out.print(printed)


@app.command()
def recommend(
    context: typer.Context,
    user_id: str,
    n: Annotated[int, typer.Option("-n", help="Items; 0: the server's default.")] = 0,
    preview: Annotated[bool, typer.Option(help="Log neither a slate nor an exposure.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user."""
    with refusals(), client_of(context) as client:
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
    with refusals(), client_of(context) as client:
        answer = client.rank(user_id, item_ids, preview=preview)
    _print_ranking(dataclasses.asdict(answer), f"For {user_id}", as_json=as_json)


def _print_ranking(answer: dict[str, Any], title: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    printed = table(title, "#", "item", "category", "score", "propensity")
    for slot, item in enumerate(answer["items"], 1):
        numbers = (f"{item['score']:.4f}", f"{item['propensity']:.3g}")
        printed.add_row(str(slot), item["item_id"], item["category"], *numbers)
    out.print(printed)
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
    with refusals(), client_of(context) as client:
        card = client.scorecard(experiment_id, alpha=alpha)
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    totals = table(
        f"{card.experiment_id} (version {card.version})",
        *("variant", "units", "impressions", "clicks", "purchases"),
    )
    for arm in card.variants:
        counts = (arm.units, arm.impressions, arm.clicks, arm.purchases)
        totals.add_row(arm.variant, *(f"{count:,}" for count in counts))
    out.print(totals)
    interval = f"{100 * (1 - card.alpha):g}% at any look"
    lifts = table("Lift", "metric", "treatment", "lift", interval, "verdict")
    for found in card.estimates:
        span = f"{_percent(found.low)} .. {_percent(found.high)}"
        lifts.add_row(found.metric, found.treatment, _percent(found.lift), span, found.verdict)
    out.print(lifts)
    out.print(f"SRM: {card.srm.verdict} (p={card.srm.p_value:.3g})")
    if card.flags:
        out.print(f"flags: {', '.join(card.flags)}", style="yellow")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.2f}%"


def _print_steps(steps: tuple[PolicyStep, ...]) -> None:
    """Each step of the policy that moved something, in order."""
    if not steps:
        return
    printed = table("Policy", "step", "what it moved", "took out")
    for step in steps:
        moves = zip(step.slots, step.before, step.after, strict=True)
        moved = ", ".join(f"#{slot + 1}: place {a + 1} to {b + 1}" for slot, a, b in moves)
        printed.add_row(step.name, moved, str(step.removed or ""))
    out.print(printed)


@app.command()
def explain(context: typer.Context, request_id: str, as_json: AsJson = False) -> None:
    """Say why a past answer was what it was."""
    with refusals(), client_of(context) as client:
        answer = client.explain(request_id)
    if as_json:
        print_json(dataclasses.asdict(answer))
        return
    title = f"{answer.request_id}: for {answer.user_id}, {time_of(answer.served_time_ms)}"
    printed = table(
        *(title, "#", "item", "retrieved by", "pctr", "model's place", "propensity"),
        "what moved its logit most",
    )
    for slot, item in enumerate(answer.items, 1):
        why = ", ".join(
            f"{c.feature}={c.value:g} {c.contribution:+.3f}" for c in item.contributions[:4]
        )
        likely = f"{item.propensity:.3g}"
        if answer.propensity_draws:
            likely += f" ± {item.propensity_error:.2g}"
        if answer.other_model_id:
            likely += f", team {'AB'[item.team]}"
        place = str(item.place + 1)
        cells = (", ".join(item.sources), f"{item.pctr:.4f}", place, likely, why)
        printed.add_row(str(slot), item.item_id, *cells)
    out.print(printed)
    _print_steps(answer.steps)
    named = (
        *("model_id", "index_id", "spec_id", "experiment_id", "variant", "method", "policy"),
        *("policy_hash", "propensity_draws", "other_model_id", "cut_by", "cut_from"),
    )
    _print_named({name: getattr(answer, name) for name in named})
    if answer.degraded:
        out.print(f"degraded: {', '.join(answer.degraded)}", style="yellow")
