"""The log tells image, shard and try, in text or JSON, and never floods."""

from __future__ import annotations

import json
import logging

import pytest

from tests.support.inprocess import Bench
from textspot_ray.config import EngineConfig
from textspot_ray.engine.slot import events as notes
from textspot_ray.engine.slot.events import JsonLines, PlainLines, RateLimitedLog, SlotEvent
from textspot_ray.errors import ConfigError

LOG = logging.getLogger("textspot_ray.tests.notes")


def test_an_image_that_kills_is_told_with_its_shard_at_each_try() -> None:
    bench = Bench()
    bench.run(["words=a", "do=crash", "words=b"])
    told = [note for note in bench.runner.take_slot_events() if note.image == "mem://1"]
    assert [note.attempt for note in told] == [1, 2, 3]
    assert all("SIGSEGV" in note.message for note in told)
    assert {note.shard for note in told} == {str(bench.writers[0].shard)}


def test_a_note_as_text(caplog: pytest.LogCaptureFixture) -> None:
    RateLimitedLog(LOG).write(3, SlotEvent("it ended", "file:///a.jpg", "000001-000002", 2))
    RateLimitedLog(LOG).write(3, SlotEvent("recycled"))
    assert caplog.messages == [
        "slot 3: it ended (file:///a.jpg, shard 000001-000002, attempt 2)",
        "slot 3: recycled",
    ]


def test_a_note_as_json(caplog: pytest.LogCaptureFixture) -> None:
    RateLimitedLog(LOG).write(3, SlotEvent("it ended", "file:///ä.jpg", "000001-000002", 2))
    LOG.warning("no node is left; waiting for %d s", 5)
    first, second = (json.loads(JsonLines().format(record)) for record in caplog.records)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "message": "it ended",
        "slot": 3,
        "shard": "000001-000002",
        "image": "file:///ä.jpg",
        "attempt": 2,
    }
    assert set(second) == {"time", "level", "message"}
    assert second["message"] == "no node is left; waiting for 5 s"


def test_text_of_a_file_cannot_move_the_cursor() -> None:
    told = SlotEvent("a decoder said \x1b[2J", image="\x1b]0;title\x07.jpg")
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "slot 0: %s\nmore", (told,), None)
    assert PlainLines(str).format(record) == (
        "textspot: slot 0: a decoder said \\x1b[2J (\\x1b]0;title\\x07.jpg)\nmore"
    )


def test_a_trace_stays_within_its_line() -> None:
    try:
        raise ValueError("x\ny")
    except ValueError as exc:
        info = (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("n", logging.ERROR, "p", 1, "broken", (), info)
    line = JsonLines().format(record)
    assert "\n" not in line and "ValueError" in json.loads(line)["trace"]


def test_what_is_too_much_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now_s = 0.0

        def monotonic(self) -> float:
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(notes, "time", clock)
    log = RateLimitedLog(LOG, per_minute=10)
    for _ in range(1000):
        log.write(0, SlotEvent("x"))
    assert len(caplog.messages) == 10
    clock.now_s = 61.0
    log.write(0, SlotEvent("y"))
    assert caplog.messages[10:] == [
        "990 more such lines left out; textspot errors lists every failed image",
        "slot 0: y",
    ]
    log.flush()
    assert len(caplog.messages) == 12  # nothing was left out since


def test_no_other_format() -> None:
    with pytest.raises(ConfigError, match=r"engine\.log_format"):
        EngineConfig(log_format="xml")
