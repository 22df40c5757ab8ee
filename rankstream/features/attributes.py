"""Which numbers of users and items are features.

Rows, kernels and the spec are laid out by them, so they are read when this module is loaded, from
RANKSTREAM_USER_ATTRIBUTES and RANKSTREAM_ITEM_ATTRIBUTES: names, separated by commas. Everything
that makes, reads or learns from vectors must be given the same; they are part of the spec's id and
of what snapshots of the stream are checked for, so what was not is refused.
"""

from __future__ import annotations

import os
import re
from typing import Final

from rankstream.errors import InvalidSettings

MORE_MAX: Final = 32
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def attributes(variable: str, always: tuple[str, ...], value: str) -> tuple[str, ...]:
    """The names that are always there, and those of a variable.

    Raises: InvalidSettings: a name is not one, is there twice, or there are over MORE_MAX.

    >>> attributes("RANKSTREAM_ITEM_ATTRIBUTES", ("year",), "duration_s, upload_day")
    ('year', 'duration_s', 'upload_day')
    """
    more = tuple(name.strip() for name in value.split(",")) if value.strip() else ()
    names = (*always, *more)
    wrong = [name for name in more if not _NAME.fullmatch(name) or names.count(name) > 1]
    if wrong or len(more) > MORE_MAX:
        what = f"{wrong[0]!r}" if wrong else f"{len(more)} names"
        raise InvalidSettings(
            f"invalid_settings: {variable} has {what} (limit: {MORE_MAX} different names of small"
            f" letters, digits and _, none of {', '.join(always)}). Not started. Mend it."
        )
    return names


def _configured(variable: str, always: tuple[str, ...]) -> tuple[str, ...]:
    return attributes(variable, always, os.environ.get(variable, ""))


USER_ATTRIBUTES: Final = _configured("RANKSTREAM_USER_ATTRIBUTES", ("age", "gender_male"))
ITEM_ATTRIBUTES: Final = _configured("RANKSTREAM_ITEM_ATTRIBUTES", ("year", "price"))
