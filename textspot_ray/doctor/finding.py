"""What a check of ``textspot doctor`` found: a level, one line, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from textspot_ray.errors import TextspotError
from textspot_ray.redaction import redact_text
from textspot_ray.storage.faults import reason_of


class Level(StrEnum):
    """Severity: with a failure a run cannot work, with a warning it may be slow or fragile."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the report."""

    check: str
    level: Level
    text: str
    fix: str = ""

    def line(self) -> str:
        """As it is printed.

        >>> CheckResult("disk", Level.WARN, "1 GiB free in /tmp", "free some").line()
        'warn  disk       1 GiB free in /tmp: free some'
        """
        tail = f": {self.fix}" if self.fix else ""
        return f"{self.level:<5} {self.check:<10} {redact_text(self.text + tail)}"


def ok(check: str, text: str) -> CheckResult:
    """Nothing to do."""
    return CheckResult(check, Level.OK, text)


def warn(check: str, text: str, fix: str) -> CheckResult:
    """A run would be slow or fragile.

    Args:
        check: The check.
        text: What was found.
        fix: How to fix it.
    """
    return CheckResult(check, Level.WARN, text, fix)


def fail(check: str, text: str, fix: str) -> CheckResult:
    """A run would not work.

    Args:
        check: The check.
        text: What was found.
        fix: How to fix it.
    """
    return CheckResult(check, Level.FAIL, text, fix)


def guarded(name: str, check: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    """The check's findings; a check that raises is itself a finding and does not end the report."""
    try:
        yield from check()
    except TextspotError as exc:
        yield CheckResult(name, Level.FAIL, str(exc))
    except Exception as exc:
        yield fail(
            name, f"{type(exc).__name__}: {reason_of(exc)}", "the check itself broke; report this"
        )
