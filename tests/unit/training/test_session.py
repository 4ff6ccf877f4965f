"""A session ends when its minutes are up or a signal comes, and leaves signals as they were."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

import pytest

from jobs.training.loop.session import Session, usable_device

SIGNALLED = """
import os, signal, sys, time
from jobs.training.loop.session import Session
number = int(sys.argv[1])
before = signal.getsignal(number)
with Session(minutes=10) as session:
    assert not session.over
    os.kill(os.getpid(), number)
    time.sleep(0.01)
    assert session.stopped
    assert session.over
assert signal.getsignal(number) is before
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_step(number: signal.Signals) -> None:
    # in a process of its own: where torch has traced `test_bundle_export`'s modules before, Python
    # 3.11 itself crashes when it calls a signal's handler (torch 2.14)
    subprocess.run([sys.executable, "-c", SIGNALLED, str(int(number))], check=True)


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


def test_a_gpu_that_is_not_there_is_a_mistake_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    assert usable_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_device("cuda") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(argparse.ArgumentTypeError, match="give cpu"):
        usable_device("cuda")
    with pytest.raises(argparse.ArgumentTypeError, match="neither cpu nor cuda"):
        usable_device("tpu")
