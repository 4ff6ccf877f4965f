"""Log lines about images that go wrong: image, shard, attempt; limited in rate.

A line is plain text, or a JSON object with the fields ``time``, ``level``, ``message``,
``slot``, ``shard``, ``image`` and ``attempt`` for collectors (``engine.log_format``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Final

from textspot_ray.errors import printable
from textspot_ray.redaction import redact_text

PER_MINUTE: Final = 60  # lines; an archive may hold a million images that end their worker
_FIELDS: Final = ("slot", "shard", "image", "attempt")


@dataclass(frozen=True, slots=True)
class SlotEvent:
    """Something that went wrong in a slot.

    Attributes:
        message: What happened.
        image: Id of the image concerned, if any.
        shard: Its shard, as in the names of files.
        attempt: Number of the attempt at the image, from 1.
    """

    message: str
    image: str = ""
    shard: str = ""
    attempt: int = 0

    def __str__(self) -> str:
        where = [self.image, self.shard and f"shard {self.shard}"]
        where += [f"attempt {self.attempt}"] if self.attempt else []
        place = ", ".join(filter(None, where))
        return f"{self.message} ({place})" if place else self.message


class RateLimitedLog:
    """Logs slots' events, at most `PER_MINUTE`, and how many were left out."""

    def __init__(self, log: logging.Logger, per_minute: int = PER_MINUTE) -> None:
        self._log = log
        self._per_minute = per_minute
        self._since_s = time.monotonic()
        self._written = self._dropped = 0

    def write(self, slot: int, event: SlotEvent) -> None:
        """Log an event of a slot."""
        if time.monotonic() - self._since_s >= 60.0:
            self.flush()
        if self._written >= self._per_minute:
            self._dropped += 1
            return
        self._written += 1
        fields = {name: getattr(event, name) for name in _FIELDS[1:] if getattr(event, name)}
        extra = {"note": event.message, "slot": slot, **fields}
        self._log.warning("slot %d: %s", slot, event, extra=extra)

    def flush(self) -> None:
        """Log how many were left out, and begin another minute."""
        if self._dropped:
            self._log.warning(
                "%d more such lines left out; textspot errors lists every failed image",
                self._dropped,
            )
        self._since_s = time.monotonic()
        self._written = self._dropped = 0


class PlainLines(logging.Formatter):
    """A line of text, without the secrets of the configuration and without control characters."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("textspot: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The record."""
        lines = self._redact(super().format(record)).split("\n")  # a trace has several
        return "\n".join(map(printable, lines))


class JsonLines(logging.Formatter):
    """One JSON object a line, without the secrets of the configuration."""

    def __init__(self, redact: Callable[[str], str] = redact_text) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The record, with what is known of slot, shard, image and attempt."""
        known = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        known = {k: self._redact(v) if isinstance(v, str) else v for k, v in known.items()}
        if record.exc_info:
            known["trace"] = self._redact(self.formatException(record.exc_info))
        message = self._redact(getattr(record, "note", None) or record.getMessage())
        return _json_line(record.created, record.levelname.lower(), message, known)


def _json_line(at: float, level: str, message: str, facts: Mapping[str, object]) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    when = f"{seconds}.{int(at % 1 * 1000):03d}Z"
    return json.dumps(
        {"time": when, "level": level, "message": message, **facts}, ensure_ascii=False
    )


def tell(
    message: str, log_format: str, stream: IO[str] | None = None, **facts: float | None
) -> None:
    """Print progress or a notice to standard error.

    Args:
        message: One line.
        log_format: ``text`` or ``json``, as of the log.
        stream: Used instead of standard error.
        facts: The figures in the line; they get their own keys in JSON.
    """
    if log_format == "json":
        message = _json_line(time.time(), "info", message, facts)
    with contextlib.suppress(OSError):  # a closed terminal must not end a run
        print(message, file=stream or sys.stderr, flush=True)


def set_up_logging(log_format: str, redact: Callable[[str], str] = redact_text) -> None:
    """Send a command's log to standard error.

    Args:
        log_format: ``text`` or ``json``.
        redact: Removes secrets from log lines.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(redact) if log_format == "json" else PlainLines(redact))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
