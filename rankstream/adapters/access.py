"""Who may call: API keys with scopes and rates, in front of HTTP; `access_rpc` is for gRPC."""

from __future__ import annotations

import hmac
import ipaddress
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from rankstream import metrics
from rankstream.adapters.http import error_response
from rankstream.adapters.keys import Key, Scope, read_keys, sha256_of
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.settings import PublicSettings
from rankstream.errors import PermissionDenied, RankstreamError, RateLimited, Unauthenticated

OPEN_PATHS: Final = ("/healthz", "/readyz")
API: Final = "/v1/"
_SCHEME: Final = "bearer "
_NOBODY: Final = "unknown"  # the label of calls without a right key

ScopeOf = Callable[[str, str], Scope]


@dataclass
class _Bucket:
    """Tokens of one key: `burst` at most, `rate_per_s` more each second; a call takes one."""

    key: Key
    tokens: float
    at_s: float

    def wait_s(self, now_s: float) -> float:
        """Take a token: 0. If there is none: how long until there is."""
        more = max(0.0, now_s - self.at_s) * self.key.rate_per_s
        self.tokens, self.at_s = min(float(self.key.burst), self.tokens + more), now_s
        if self.tokens < 1:
            return (1 - self.tokens) / self.key.rate_per_s
        self.tokens -= 1
        return 0.0


class Access:
    """The keys of one process. Rates are of the process: n replicas let n times as much through."""

    def __init__(
        self, keys: Sequence[Key], *, clock_s: Callable[[], float], metrics_of: Metrics
    ) -> None:
        now_s = clock_s()
        self._buckets = [_Bucket(key, key.burst, now_s) for key in keys]
        self._clock_s = clock_s
        self._calls = metrics_of.counter(metrics.ACCESS_CALLS)

    def check(self, authorization: str, scope: Scope) -> None:
        """Let a call with this header through, or refuse it; count it by the key's name.

        Raises: Unauthenticated, PermissionDenied, RateLimited.
        """
        bucket = self._bucket(authorization)
        name = _NOBODY if bucket is None else bucket.key.name
        try:
            self._check(bucket, scope)
        except RankstreamError as error:
            self._calls.labels(name, error.code).inc()
            raise
        self._calls.labels(name, "ok").inc()

    def _bucket(self, authorization: str) -> _Bucket | None:
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return None
        given = sha256_of(authorization[len(_SCHEME) :].strip())
        found = None
        for bucket in self._buckets:  # all of them, so that time tells nothing
            if hmac.compare_digest(bucket.key.sha256, given):
                found = bucket
        return found

    def _check(self, bucket: _Bucket | None, scope: Scope) -> None:
        if bucket is None:
            raise Unauthenticated(
                "unauthenticated: no known API key. Not answered."
                " Send one as `authorization: Bearer KEY`."
            )
        key = bucket.key
        if scope not in key.scopes:
            raise PermissionDenied(
                f"permission_denied: key {key.name!r} has scope {', '.join(key.scopes)}, this call"
                f" needs {scope}. Not answered. Use a key that has it."
            )
        if wait_s := bucket.wait_s(self._clock_s()):
            raise RateLimited(
                f"rate_limited: key {key.name!r} is over {key.rate_per_s:g} calls/s (burst"
                f" {key.burst}). Not answered. Try again in {wait_s:.3g} s.",
                retry_after_s=math.ceil(wait_s),
            )


def access_of(settings: PublicSettings, *, metrics_of: Metrics) -> Access | None:
    """The access of a service, to both of its ports; without a key file all may call.

    Raises: InvalidSettings: see `read_keys`.
    """
    if settings.keys:
        keys = read_keys(Path(settings.keys))
        return Access(keys, clock_s=time.monotonic, metrics_of=metrics_of)
    for host in (settings.host, settings.admin_host):
        if not _is_loopback(host):
            mend = "name a key file in *_KEYS"
            structlog.get_logger().warning("open_to_all", host=host, mend=mend)
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def protect(app: Starlette, access: Access | None, scope_of: ScopeOf) -> None:
    """Ask for a key in front of every route but health.

    scope_of: what a method and a path below /v1/ need; metrics and documentation need `admin`.
    """
    if access is not None:
        app.add_middleware(KeyCheck, access=access, scope_of=scope_of)


class KeyCheck:
    """Refuse a call before anything reads its body."""

    def __init__(self, app: ASGIApp, access: Access, scope_of: ScopeOf) -> None:
        self.app = app
        self._access = access
        self._scope_of = scope_of

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        needed = self._scope_of(scope["method"], path) if path.startswith(API) else "admin"
        headers = dict(scope["headers"])
        try:
            self._access.check(headers.get(b"authorization", b"").decode("latin-1"), needed)
        except RankstreamError as error:
            await error_response(error)(scope, receive, send)
            return
        await self.app(scope, receive, send)
