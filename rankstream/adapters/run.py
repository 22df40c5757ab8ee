"""The common `__main__`: settings, logs, loop, run."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
import uvloop

from rankstream.adapters.logs import configure_logs
from rankstream.adapters.settings import S, load_settings
from rankstream.errors import CannotListen, InvalidSettings


def run(
    main: Callable[[S], Awaitable[None]],
    settings_class: type[S],
    prefix: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> int:
    """Run a service until it stops; the process's exit code.

    `--check-config` starts nothing: 0 if the settings are right, 1 and the problem if not.
    """
    service = prefix.rstrip("_").lower()
    parser = argparse.ArgumentParser(prog=f"python -m services.{service}")
    parser.add_argument("--check-config", action="store_true", help="check the settings and exit")
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings(settings_class, prefix, environ)
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if arguments.check_config:
        sys.stdout.write(f"{service}: settings are valid\n")
        return 0
    configure_logs(service, settings.log_level)
    log = structlog.get_logger()
    # What was imported stays, some hundred thousand objects: a look at them all holds up .1 s.
    gc.freeze()

    async def until_stopped() -> None:
        await main(settings)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_stopped())
    except CannotListen as error:
        log.error("service_not_started", error=str(error))
        return 1
    except Exception:
        # Whatever it is, the structured log must hold it before the process ends with it.
        log.exception("service_failed")
        raise
    log.info("service_stopped")
    return 0
