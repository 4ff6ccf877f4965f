"""A late worker that gets no processor time is waited for, up to a bound; one that hangs is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.inprocess import ActedWorker
from textspot_ray.engine.slot import limits as starving
from textspot_ray.engine.slot import worker_pool
from textspot_ray.engine.slot.limits import Deadlines, Starving, allowed_s, run_delays_s
from textspot_ray.engine.slot.ports import Events
from textspot_ray.engine.slot.worker_pool import State, WorkerHandle
from textspot_ray.records import Stage

LIMIT_S = 60.0


class Clock:
    """A made-up clock, and a process whose thread waits for a core for a share of the time."""

    def __init__(self, share: float) -> None:
        self.now_s = 1000.0
        self.share = share

    def monotonic(self) -> float:
        return self.now_s

    def delays_s(self, pid: int) -> dict[int, float]:
        return {pid: self.share * self.now_s, pid + 1: 0.0}


@pytest.fixture
def make_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    def make(share: float) -> Clock:
        clock = Clock(share)
        monkeypatch.setattr(worker_pool, "time", clock)
        monkeypatch.setattr(starving, "time", clock)
        monkeypatch.setattr(starving, "run_delays_s", clock.delays_s)
        return clock

    yield make  # type: ignore[misc]


def a_member(pid: int | None = 77) -> WorkerHandle:
    worker = ActedWorker(Events())
    worker.pid = pid
    return WorkerHandle(worker, State.READY)


def killed_after_s(member: WorkerHandle, clock: Clock, tick_s: float = 0.5) -> float:
    """Look every tick, as a runner does, until the worker must go."""
    member.open([1], Stage.DETECT, 1.0)
    began_s, deadlines = clock.now_s, Deadlines(LIMIT_S)
    for _ in range(2000):
        clock.now_s += tick_s
        if member.overdue(deadlines, 120.0) is not None:
            return clock.now_s - began_s
    raise AssertionError("never killed")


@pytest.mark.parametrize(
    ("share", "after_s"), [(0.0, 60), (0.05, 63), (0.5, 120), (0.75, 240), (0.9, 300), (1.0, 300)]
)
def test_time_without_a_core_does_not_count_up_to_a_bound(make_clock, share, after_s) -> None:
    assert killed_after_s(a_member(), make_clock(share)) == pytest.approx(after_s, abs=1.1)


def test_where_the_process_is_not_known_the_deadline_is_what_it_was(make_clock) -> None:
    assert killed_after_s(a_member(pid=None), make_clock(1.0)) == pytest.approx(60, abs=1.1)


def test_a_runner_that_was_away_looks_before_it_kills_and_then_kills(make_clock) -> None:
    clock = make_clock(0.0)
    member = a_member()
    member.open([1], Stage.DETECT, 1.0)
    clock.now_s += 200.0  # the first look in all that time
    assert member.overdue(Deadlines(LIMIT_S), 120.0) is None
    clock.now_s += 4.0
    assert member.overdue(Deadlines(LIMIT_S), 120.0) is None
    clock.now_s += 2.0
    assert "no answer within 206 s" in str(member.overdue(Deadlines(LIMIT_S), 120.0))


def test_an_answer_ends_the_look(make_clock) -> None:
    clock = make_clock(1.0)
    member = a_member()
    member.open([1], Stage.DETECT, 1.0)
    clock.now_s += 40.0
    assert member.overdue(Deadlines(LIMIT_S), 120.0) is None and member.starving is not None
    member.close(1, 0, 2**30)
    member.open([2], Stage.DETECT, 1.0)
    assert member.overdue(Deadlines(LIMIT_S), 120.0) is None and member.starving is None


def test_loading_models_is_given_the_same_patience(make_clock) -> None:
    clock = make_clock(0.5)
    member = a_member()
    member.state, member.since_s = State.STARTING, clock.now_s
    for _ in range(1000):
        clock.now_s += 0.5
        if reason := member.overdue(Deadlines(LIMIT_S), 30.0):
            break
    assert reason == "did not load its models within 60 s"


def test_a_process_that_is_not_there_tells_nothing() -> None:
    assert run_delays_s(2**30) == {}
    assert Starving.begin(2**30).share() == 0.0
    assert allowed_s(60.0, 0.0) == 60.0


@contextlib.contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it is up, and waits for no core to begin
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not run_delays_s(os.getpid()), reason="this kernel counts no run delays")
def test_a_process_that_shares_its_core_starves_and_one_that_sleeps_does_not() -> None:
    core = min(os.sched_getaffinity(0))
    pin = f"import os, time; os.sched_setaffinity(0, [{core}]); print(flush=True); "
    spin = pin + "[None for _ in iter(int, 1)]"
    with python(spin) as first, python(spin), python(spin), python(pin + "time.sleep(60)") as idle:
        time.sleep(0.2)
        looks = Starving.begin(first.pid), Starving.begin(idle.pid)
        time.sleep(1.5)
        starved, asleep = (look.share() for look in looks)
    assert starved > 0.4  # two thirds, if nothing else runs there
    assert asleep < 0.2
