"""Settings of a service: read once, in `__main__`, from variables with its prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankstream.errors import InvalidSettings


class ServiceSettings(BaseModel):
    """Fields that every service has. A service declares its own in a subclass, nothing else.

    Not pydantic-settings' class: that one reads the process environment by itself, ours is
    given its variables and refuses those that it does not know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(ge=0, le=65_535)
    kafka_url: str = Field(default="127.0.0.1:9092", min_length=1)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    shutdown_timeout_s: float = Field(default=10.0, gt=0, le=600)


class PublicSettings(ServiceSettings):
    """Fields of a service that the public calls: `host` and `port` are for it, `admin_*` is not."""

    admin_host: str = Field(default="127.0.0.1", min_length=1)
    admin_port: int = Field(ge=0, le=65_535)
    # File of API keys, one JSON object a line (`rankstream keys new`); empty: all may call.
    keys: str = Field(default="")


S = TypeVar("S", bound=ServiceSettings)


def load_settings(cls: type[S], prefix: str, environ: Mapping[str, str]) -> S:
    """The settings that variables named `prefix` + FIELD describe.

    Raises: InvalidSettings naming each wrong variable, its value and what is allowed.
    """
    names = {prefix + field.upper(): field for field in cls.model_fields}
    unknown = sorted(name for name in environ if name.startswith(prefix) and name not in names)
    problems = [f"{name} is not a setting (known: {', '.join(sorted(names))})" for name in unknown]
    values = {field: environ[name] for name, field in names.items() if name in environ}
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            where = "_".join(str(part) for part in found["loc"]).upper()
            given = "not set" if found["type"] == "missing" else repr(found["input"])
            problems.append(f"{prefix}{where} is {given}: {found['msg']}")
        raise _invalid(problems) from None
    if problems:
        raise _invalid(problems)
    return settings


def _invalid(problems: list[str]) -> InvalidSettings:
    return InvalidSettings(
        f"invalid_settings: {'; '.join(problems)}. Not started. Mend or unset the variable."
    )
