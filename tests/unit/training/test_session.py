"""A session ends when its minutes are up or a signal comes, and leaves signals as they were."""

from __future__ import annotations

import os
import signal
import time

import pytest

from jobs.training.loop.session import Session


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_step(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Session(minutes=10) as session:
        assert not session.over
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert session.stopped
        assert session.over
    assert signal.getsignal(number) is before


def test_minutes_count_on_from_earlier_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Session(minutes=2, before=30) as session:
        now[0] += 90
        assert session.minutes == 30  # of the last lap
        session.lap()
        assert session.minutes == pytest.approx(31.5)
        assert session.left == pytest.approx(0.5)
        assert not session.over
        now[0] += 30
        session.lap()
        assert session.over
        assert not session.stopped


def test_no_minutes_are_over_at_once() -> None:
    assert Session(minutes=0).over
