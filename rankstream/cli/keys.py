"""`rankstream keys`: API keys for the services' key files."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from rankstream.adapters.keys import Scope, new_key
from rankstream.cli.console import AsJson, err, out, print_json, refusals

keys = typer.Typer(no_args_is_help=True, help="API keys for the services' key files.")


@keys.callback()
def _group() -> None:
    """So that `new` is a command of its own and not the whole group."""


@keys.command()
def new(
    name: Annotated[str, typer.Option(help="Whose key it is: in refusals and metrics.")],
    as_json: AsJson = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; several are allowed.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Calls per second.")] = 100.0,
    burst: Annotated[int, typer.Option(help="Calls at once.")] = 200,
) -> None:
    """Make a key. It is shown this once; the key file gets the line with its hash."""
    scopes = cast("tuple[Scope, ...]", tuple(scope or ["read"]))
    with refusals():
        key, kept = new_key(name, scopes, rate_per_s=rate, burst=burst)
    if as_json:
        print_json({"key": key, "line": kept.model_dump(mode="json")})
        return
    err.print("The key, shown this once, and the line for the key file:")
    out.print(key, soft_wrap=True)
    out.print(kept.model_dump_json(), soft_wrap=True)
