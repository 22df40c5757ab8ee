"""Liveness, readiness and metrics: routes that every service has."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


class Health:
    """Which parts of a service cannot work now, and why. A named part starts not ready."""

    def __init__(self, *components: str) -> None:
        self._reasons: dict[str, str] = dict.fromkeys(components, "starting")

    def ready(self, name: str) -> None:
        """The part works."""
        self._reasons.pop(name, None)

    def not_ready(self, name: str, reason: str) -> None:
        """The part does not work, because of `reason`."""
        self._reasons[name] = reason

    def reasons(self) -> dict[str, str]:
        """Parts that do not work -> why; empty when the service is ready."""
        return dict(self._reasons)


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def probe_routes(health: Health) -> list[Route]:
    """/healthz (the process answers) and /readyz (200 or 503), for whoever sends requests here.

    The reasons name hosts and models, so they are not for everybody.
    """

    async def readyz(_request: Request) -> Response:
        ready = not health.reasons()
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    return [Route("/healthz", _healthz), Route("/readyz", readyz)]


def health_routes(health: Health, registry: CollectorRegistry) -> list[Route]:
    """/healthz (the process answers), /readyz (200, or 503 with the reasons) and /metrics."""

    async def readyz(_request: Request) -> Response:
        reasons = health.reasons()
        body = {"ready": not reasons, "reasons": reasons}
        return JSONResponse(body, status_code=503 if reasons else 200)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", _healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]
