"""What worker processes do about their own end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_CRASH = """
import faulthandler, os, sys, threading
from textspot_ray.engine.slot.process_setup import use_default_crash_handlers
faulthandler.enable()  # stands for any handler of fatal signals
if sys.argv[2] == "plainly":
    thread = threading.Thread(target=use_default_crash_handlers)  # as an actor's method runs
    thread.start()
    thread.join()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_runs_no_handler(number):
    for how, handled in (("as it was", True), ("plainly", False)):
        command = [sys.executable, "-c", _CRASH, str(int(number)), how]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == -number
        assert ("Fatal Python error" in ended.stderr) is handled
