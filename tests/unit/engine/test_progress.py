"""Sums over slots, and the lines that show them."""

from __future__ import annotations

import errno
import io
import itertools
import json
import re
from dataclasses import replace

import pytest

from textspot_ray.engine import progress as module
from textspot_ray.engine.progress import Tally, console, line
from textspot_ray.engine.slot.done_pages import LongFile
from textspot_ray.engine.slot.open_shards import ShardOutcome
from textspot_ray.engine.slot.slot import Report
from textspot_ray.records import Counts, ShardId
from textspot_ray.tables.commit.commit_record import CommitRecord


def report(done=0, open_=0, other=False):
    counts = Counts(items=done, images=done, words=2 * done)
    shard = ShardId(0, done)
    record = CommitRecord(shard, 0, "a" * 12, "run", "run", "f", counts, ())
    settled = (ShardOutcome(shard, 0, None if other else record, counts),) if done else ()
    return Report(settled, Counts(items=open_, images=open_, words=open_), True, False, ())


def test_open_shards_count_until_their_slot_is_lost():
    tally = Tally(items_before=100)
    tally.items_planned = 200
    tally.add(0, report(done=10, open_=5))
    tally.add(1, report(open_=7))
    now = tally.progress()
    assert (now.items_done, now.images, now.words) == (122, 22, 32)
    tally.forget(1)
    assert tally.progress().images == 15


def test_items_that_are_tried_again_are_not_done_twice():
    tally = Tally(8)
    tally.items_planned = 8
    tally.begin_again(2)
    assert (tally.progress().items_done, tally.progress().items_planned) == (6, 8)
    tally.add(0, report(done=2))
    assert (tally.progress().items_done, tally.progress().items_planned) == (8, 8)


def test_work_of_another_driver_is_done_but_not_ours():
    tally = Tally(0)
    tally.items_planned = 50
    tally.add(0, report(done=10, other=True))
    tally.add_others(10)
    now = tally.progress()
    assert now.items_done == 10 and now.images == 0


def test_rate_and_eta(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    tally = Tally(0)
    tally.items_planned = 100
    tally.progress()
    clock[0] += 10
    tally.add(0, report(open_=20))
    now = tally.progress()
    assert now.images_per_s == 2.0 and now.eta_s == 40.0
    assert tally.progress(planning=True).eta_s is None
    assert line(now) == "20/100 images  2.0 images/s  20 words  0 failed  ETA 0:40"


def test_pages_of_a_long_file_tell_nothing_of_when_its_items_end(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    tally = Tally(0)
    tally.items_planned = 3
    tally.progress()
    clock[0] += 10
    tally.add(0, replace(report(), open_counts=Counts(images=400, words=800)))
    now = tally.progress()
    assert now.images_per_s == 40.0 and now.eta_s is None
    assert line(now) == "0/3 files, 400 pages  40.0 images/s  800 words  0 failed  ETA ?"
    clock[0] += 10
    tally.add(0, replace(report(), open_counts=Counts(items=1, images=600, words=800)))
    assert tally.progress().eta_s == 40.0


def test_pages_that_others_did_of_a_long_file_count_once():
    file = LongFile(ShardId(0, 0), 0, "a.tif", 64, 200)
    blocks = [replace(file, start=start, stop=start + 32) for start in (192, 160, 64)]
    tally = Tally(0)
    tally.add(0, replace(report(), open_counts=Counts(images=40), long_files=(file,)))
    tally.add(1, replace(report(), helped=tuple(blocks[:2])))
    assert tally.progress().images == 40 + 8 + 32  # the last block is no whole one
    tally.add(1, replace(report(), helped=tuple(blocks)))
    assert tally.progress().images == 40 + 8 + 32 + 32
    later = replace(file, start=192)  # it has taken two of them
    tally.add(0, replace(report(), open_counts=Counts(images=192), long_files=(later,)))
    assert tally.progress().images == 192 + 8
    tally.add(0, replace(report(), open_counts=Counts(images=200)))
    assert tally.progress().images == 200
    tally.add(0, replace(report(), open_counts=Counts(images=40), long_files=(file,)))
    tally.forget(0)
    assert tally.progress().images == 0


def test_plain_lines_come_farther_and_farther_apart_and_at_the_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    show = console(2.0, out)
    tally = Tally(0)
    tally.items_planned = 10_000
    shown = []
    for second in range(1, 601):
        clock[0] = second
        tally.add(0, report(open_=second))
        before = len(out.getvalue())
        show(tally.progress())
        shown += [second] if len(out.getvalue()) > before else []
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert shown[0] == 2 and gaps == sorted(gaps) and gaps[-1] == 60 and len(shown) < 20
    show(tally.progress(final=True))
    assert out.getvalue().splitlines()[-1].endswith("10:00 in all")


def test_no_plain_line_repeats_the_one_before_within_a_minute(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    show = console(2.0, out)
    tally = Tally(0)
    for _ in range(59):  # models load: there is nothing to tell
        clock[0] += 1
        tally.add(0, report())
        show(tally.progress())
    assert out.getvalue() == ""
    clock[0] += 2
    show(tally.progress())
    assert len(out.getvalue().splitlines()) == 1
    tally.forget(0)
    clock[0] += 11  # that nobody works any more is news
    show(tally.progress())
    assert "waiting for workers" in out.getvalue().splitlines()[-1]


def test_lines_are_objects_where_the_log_is(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    tally = Tally(0)
    tally.items_planned = 4
    tally.add(0, report(open_=2))
    console(2.0, out, "json")(tally.progress(final=True))
    facts = json.loads(out.getvalue())
    assert facts["message"].startswith("2/4 images") and facts["level"] == "info"
    assert (facts["items_done"], facts["items_planned"], facts["words"]) == (2, 4, 2)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_rate_words_failures_and_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    show = console(2.0, out)
    tally = Tally(0)
    tally.items_planned = 4000
    tally.add(0, report(open_=2))
    show(tally.progress())
    show(tally.progress(final=True))
    for part in ("2/4,000 images", "images/s", "2 words", "0 failed", "ETA ?", "0:00 in all"):
        assert part in out.getvalue()
    assert "\r" in out.getvalue()
    assert "\x1b[?25l" not in out.getvalue()  # the cursor stays: a killed run cannot bring it back


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_are_for_terminals_that_want_them(monkeypatch, no_color):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    show = console(2.0, out)
    tally = Tally(0)
    tally.items_planned = 2
    failed = Counts(items=1, images=1, failed=1)
    tally.add(0, Report((), failed, True, False, ()))
    show(tally.progress(final=True))
    assert "1 failed" in out.getvalue()
    coloured = re.search(r"\x1b\[[0-9;]*3[0-9]", out.getvalue()) is not None
    assert coloured is not no_color


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    show = console(0.0, out)
    show(Tally(0).progress(final=True))
    assert out.getvalue().startswith("0/0 images") and "\x1b" not in out.getvalue()


def test_without_a_slot_it_says_so_instead_of_guessing(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    tally = Tally(0)
    tally.items_planned = 10
    now[0] += 5
    tally.add(0, report(open_=2))
    assert tally.progress().waiting_s == 0
    now[0] += 3
    tally.forget(0)
    now[0] += 20
    waiting = tally.progress()
    assert waiting.waiting_s == 23
    assert line(waiting).endswith("waiting for workers since 0:23")
    tally.add(1, report(open_=2))
    assert "ETA" in line(tally.progress())


@pytest.mark.parametrize(
    ("term", "fault"),
    [("xterm-256color", OSError(errno.EIO, "no terminal")), ("dumb", BrokenPipeError())],
)
def test_a_log_or_terminal_that_has_gone_ends_no_run(term, fault, monkeypatch):
    def gone(text):
        raise fault

    monkeypatch.setenv("TERM", term)
    out = Terminal()
    show = console(0.0, out)
    monkeypatch.setattr(out, "write", gone)
    show(Tally(0).progress())
    show(Tally(0).progress(final=True))
