"""What a node does when it is told to go: let the driver drain, then stop Ray.

Run as the container's preStop hook (``python -m textspot_ray.cluster.preempt``). On the head, the
driver gets SIGTERM: it starts no more images and commits the shards that are whole. On a worker
there is no driver, and stopping Ray gives the node's shards back to the scheduler at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from textspot_ray.cluster.control import DRAIN_S

RAY_STOP_S: Final = 10
GRACE_S: Final = int(DRAIN_S) + RAY_STOP_S + 10  # what the pod must be given to end
_MODULES: Final = ("textspot_ray", "textspot_ray.cluster.jobentry")
_COMMANDS: Final = ("run", "retry-failed")


def is_driver(arguments: list[str]) -> bool:
    """Whether a command line is that of a run: by module or by program.

    >>> is_driver(["python", "-m", "textspot_ray", "run", "photos"])
    True
    >>> is_driver(["python", "-m", "textspot_ray", "query", "out", "select 'run'"])
    False
    """
    for place, word in enumerate(arguments[:-1]):
        is_module = word in _MODULES and place > 0 and arguments[place - 1] == "-m"
        # an interpreter's script is its second word; `sh -c "textspot run"` drains by its child
        is_program = place <= 1 and Path(word).name == "textspot"
        if is_module or is_program:
            return arguments[place + 1] in _COMMANDS
    return False


def drain(processes: Iterable[psutil.Process], timeout_s: float = DRAIN_S) -> int:
    """Send SIGTERM once to each driver among the processes and wait for them; how many there were.

    A second SIGTERM would end a driver at once, so none is sent.
    """
    drivers = []
    for process in processes:
        try:
            if process.pid != os.getpid() and is_driver(process.cmdline()):
                process.terminate()
                drivers.append(process)
        except psutil.Error:  # it ended by itself, or is not ours
            continue
    psutil.wait_procs(drivers, timeout=timeout_s)
    return len(drivers)


def main() -> int:
    """Drain, then stop Ray on this node."""
    drain(psutil.process_iter())
    ray = shutil.which("ray") or str(Path(sys.executable).parent / "ray")
    return subprocess.call([ray, "stop", "--grace-period", str(RAY_STOP_S)])


if __name__ == "__main__":
    sys.exit(main())
