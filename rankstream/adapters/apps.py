"""The two HTTP ports of a service that the public calls.

The public port has the routes that callers need and whether the service is ready, nothing else.
The admin port has all of them and those for operators, why the service is not ready, metrics, and
the document of the API. It listens on loopback unless it is told otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry

from rankstream.adapters.access import Access, ScopeOf, protect
from rankstream.adapters.health import Health, health_routes, probe_routes
from rankstream.adapters.http import BODY_BYTES_MAX, Listener, install_errors, serve_all
from rankstream.adapters.settings import PublicSettings


@dataclass(frozen=True)
class Routes:
    """What a service answers: to callers, and to operators alone."""

    public: APIRouter
    admin: APIRouter = field(default_factory=APIRouter)


@dataclass(frozen=True)
class Apps:
    """What answers at each of the two ports."""

    public: FastAPI
    admin: FastAPI


def build_apps(
    title: str,
    routes: Routes,
    health: Health,
    registry: CollectorRegistry,
    *,
    access: Access | None,
    scope_of: ScopeOf,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> Apps:
    """The apps of both ports, behind the same keys, errors and limit on bodies."""
    # The document is of both ports, so the admin one has it.
    public = FastAPI(title=title, openapi_url=None, routes=[*probe_routes(health)])
    public.include_router(routes.public)
    admin = FastAPI(title=title, routes=[*health_routes(health, registry)])
    admin.include_router(routes.public)
    admin.include_router(routes.admin)
    for app in (public, admin):
        protect(app, access, scope_of)
        install_errors(app, body_bytes_max=body_bytes_max)
    return Apps(public, admin)


async def serve_both(
    apps: Apps,
    settings: PublicSettings,
    *,
    on_stop: Callable[[], Awaitable[None]],
    background: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Serve both ports until SIGTERM or SIGINT, as `http.serve` does one."""
    listeners = (
        Listener(apps.public, settings.host, settings.port),
        Listener(apps.admin, settings.admin_host, settings.admin_port),
    )
    await serve_all(listeners, settings, on_stop=on_stop, background=background)
