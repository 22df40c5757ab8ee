"""API keys: what a service's key file says of each, never the key itself."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from rankstream.contracts.base import Contract
from rankstream.errors import InvalidSettings

Scope = Literal["read", "write", "admin"]

KEYS_MAX: Final = 1_000
KEY_BYTES: Final = 32  # random ones, so that a plain SHA-256 cannot be guessed back


class Key(Contract):
    """One line of a key file, as JSON. `admin` holds neither `read` nor `write`: name them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    rate_per_s: float = Field(gt=0, le=1_000_000)
    burst: int = Field(ge=1, le=1_000_000)


def sha256_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(
    name: str, scopes: tuple[Scope, ...], *, rate_per_s: float, burst: int
) -> tuple[str, Key]:
    """A random key, which nobody can read again, and what to keep of it.

    Raises: InvalidSettings naming the field.
    """
    key = secrets.token_urlsafe(KEY_BYTES)
    try:
        return key, Key(
            name=name, sha256=sha256_of(key), scopes=scopes, rate_per_s=rate_per_s, burst=burst
        )
    except ValidationError as error:
        raise InvalidSettings(
            f"invalid_settings: {_first(error)}. No key was made. Mend the option."
        ) from None


def read_keys(path: Path) -> list[Key]:
    """The keys of a file, one JSON object a line; blank lines and those with # are left out.

    Raises: InvalidSettings: the file cannot be read or is empty, a line is wrong, a name or a hash
        stands twice. Hashes are not shown.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, type(error).__name__) from None
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(Key.model_validate_json(line))
        except ValidationError as error:
            raise _refused(path, f"line {number}: {_first(error)}") from None
    if not 1 <= len(keys) <= KEYS_MAX:
        raise _refused(path, f"{len(keys)} keys (limit 1..{KEYS_MAX})")
    for field in ("name", "sha256"):
        if len({getattr(key, field) for key in keys}) < len(keys):
            raise _refused(path, f"two keys with one {field}")
    return keys


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _refused(path: Path, why: str) -> InvalidSettings:
    return InvalidSettings(
        f"invalid_settings: key file {path}: {why}. Not started."
        " Make lines with `rankstream keys new`."
    )
