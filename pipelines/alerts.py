"""What the monitor finds wrong, for a training that is to run only then."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from rankstream.errors import DependencyUnavailable

# What a model that was trained again may mend.
CHECKS: Final = ("observed_expected_gap", "ece_excess", "psi_excess")
TIMEOUT_S: Final = 10.0


class _Check(BaseModel):
    model_config = ConfigDict(frozen=True)

    check: str
    subject: dict[str, str]
    verdict: str
    value: float | None
    threshold: float


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)

    checks: tuple[_Check, ...]


def failing_checks(url: str, names: Collection[str], *, client: httpx.Client) -> list[str]:
    """Of the checks of these names in a monitor's report those that fail, each with its numbers.

    A check without enough data, or that could not be made, does not fail.

    Args:
        url: of the monitor; its report is at /v1/report.

    Raises: DependencyUnavailable: no report comes from there.
    """
    try:
        answer = client.get(f"{url.rstrip('/')}/v1/report").raise_for_status()
        report = _Report.model_validate_json(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as error:
        raise DependencyUnavailable(
            f"dependency_unavailable: no report from the monitor at {url}:"
            f" {str(error).splitlines()[0][:200]}. Nothing was trained."
            " Start the monitor, or train without --if-alert."
        ) from None
    return [
        f"{found.check}{{{', '.join(f'{k}={v}' for k, v in sorted(found.subject.items()))}}}"
        f" {found.value:.4g} (limit {found.threshold:g})"
        for found in report.checks
        if found.check in names and found.verdict == "fail" and found.value is not None
    ]
