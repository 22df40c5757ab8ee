"""What a check says: pass, fail, inconclusive (too little to tell) or error (it could not run)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rankstream.monitoring.drift import Verdict

ROWS_NAMED: Final = 5


@dataclass(frozen=True)
class Check:
    """One question to the rows and its answer.

    `name` is the question, `subject` the feature that it is about ("": all of them, or none in
    particular). `value` is what was measured in the unit of `threshold`, None if nothing was; `n`
    the rows it rests on. `found` says it in words and `rows` are the first offending places.
    """

    name: str
    verdict: Verdict
    value: float | None
    threshold: str
    n: int
    found: str
    subject: str = ""
    rows: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """Name and subject.

        >>> Check("range", "pass", 0.0, "[0, 1]", 9, "", subject="item_ctr").title
        'range of item_ctr'
        """
        return f"{self.name} of {self.subject}" if self.subject else self.name


@dataclass(frozen=True)
class Validation:
    """All checks of some rows, in the order in which they were asked.

    `reference` names what the rows were compared with; "" if there was nothing.
    """

    checks: tuple[Check, ...]
    n: int
    as_of_ms: int
    reference: str

    @property
    def verdict(self) -> Verdict:
        """`fail` if any check fails, else `error` if any could not run, else `pass`.

        An inconclusive check does not stop a training: the first one has no reference.
        """
        if self.having("fail"):
            return "fail"
        return "error" if self.having("error") else "pass"

    def having(self, verdict: Verdict) -> tuple[Check, ...]:
        """The checks with this verdict."""
        return tuple(check for check in self.checks if check.verdict == verdict)


def attempt(name: str, ask: Callable[[], list[Check]], n: int) -> list[Check]:
    """What `ask` answers; one check with verdict `error` if the arrays do not let it."""
    try:
        return ask()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        problem = f"could not run: {type(error).__name__}: {str(error)[:200]}"
        return [Check(name, "error", None, "", n, problem)]
