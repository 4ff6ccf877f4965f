"""What a node does before it is stopped: drain, then stop Ray.

Run as the container's preStop hook (``python -m textspot_ray.deploy.pre_stop``). On the head, the
driver gets SIGTERM: it starts no more images and commits the shards that are whole. A worker is
drained: the driver sees it (`RayCluster.leaving`) and lets the node's slots commit what is
whole and gives the rest to others. Without the hook, a node that just ends costs its open shards'
work, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from textspot_ray.engine.control import DRAIN_S

RAY_STOP_S: Final = 10
GRACE_S: Final = int(DRAIN_S) + RAY_STOP_S + 10  # what the pod must be given to end
_MODULES: Final = ("textspot_ray", "textspot_ray.deploy.job_entry")
_COMMANDS: Final = ("run", "retry-failed")
_RUNNER: Final = "ray::RunnerActor"  # how Ray names the process of a slot's runner
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class WorkerNode:
    """A Ray node of this machine that is not the head, by its raylet's process."""

    node_id: str
    gcs_address: str
    pid: int

    @classmethod
    def of(cls, arguments: list[str], pid: int = 0) -> WorkerNode | None:
        """From a raylet's command line; None if it is another program's, or the head's.

        >>> WorkerNode.of(["/ray/raylet", "--node_id=ab", "--gcs-address=10.0.0.1:6379"])
        WorkerNode(node_id='ab', gcs_address='10.0.0.1:6379', pid=0)
        """
        if not arguments or Path(arguments[0]).name != "raylet":
            return None
        options = dict(word.split("=", 1) for word in arguments[1:] if "=" in word)
        options = {name.replace("_", "-"): value for name, value in options.items()}
        node_id, address = options.get("--node-id"), options.get("--gcs-address")
        is_head = "__internal_head__" in options.get("--static-resource-list", "")
        if is_head or not node_id or not address:
            return None
        return cls(node_id, address, pid)

    @property
    def has_slot(self) -> bool:
        """Whether the runner of a slot runs on it; not if the node has already stopped."""
        try:
            workers = psutil.Process(self.pid).children()
            return any(" ".join(worker.cmdline()).startswith(_RUNNER) for worker in workers)
        except psutil.Error:
            return psutil.pid_exists(self.pid) and not _is_zombie(self.pid)


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
    """Send SIGTERM once to each driver among the processes, wait, and return their number.

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


def leave(nodes: Iterable[WorkerNode], timeout_s: float = DRAIN_S) -> None:
    """Have Ray drain this machine's worker nodes, and wait until no slot is left here."""
    end_s = time.monotonic() + timeout_s
    nodes = list(nodes)
    for node in nodes:
        command = [_ray(), "drain-node", "--address", node.gcs_address, "--node-id", node.node_id]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "preempted"]
        command += ["--deadline-remaining-seconds", str(int(timeout_s) + RAY_STOP_S)]
        try:
            subprocess.run(command, timeout=timeout_s, check=True)
        except (OSError, subprocess.SubprocessError) as exc:
            print(f"textspot: {node.node_id} could not be drained: {exc}", file=sys.stderr)
            return  # stopping Ray gives the shards back as well, only without a commit
    while time.monotonic() < end_s and any(node.has_slot for node in nodes):
        time.sleep(_LOOK_S)


def worker_nodes(processes: Iterable[psutil.Process]) -> list[WorkerNode]:
    """The Ray nodes of this machine that are not heads."""
    found = []
    for process in processes:
        try:
            node = WorkerNode.of(process.cmdline(), process.pid)
        except psutil.Error:
            continue
        if node is not None:
            found.append(node)
    return found


def main() -> int:
    """Drain, then stop Ray on this node."""
    if not drain(psutil.process_iter()):
        leave(worker_nodes(psutil.process_iter()))
    return subprocess.call([_ray(), "stop", "--grace-period", str(RAY_STOP_S)])


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def _ray() -> str:
    return shutil.which("ray") or str(Path(sys.executable).parent / "ray")


if __name__ == "__main__":
    sys.exit(main())
