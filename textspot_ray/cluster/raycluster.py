"""Starting Ray on this machine, or joining a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import psutil
import ray

from textspot_ray.cluster.joining import join
from textspot_ray.cluster.sizing import available_cpus
from textspot_ray.config import EngineConfig
from textspot_ray.errors import AbortedError

_LOG = logging.getLogger(__name__)
_LOCAL: Final = "local"
_START_ATTEMPTS: Final = 3
_SHARED_MEMORY: Final = "/dev/shm"
_MIN_STORE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Node:
    """A live node: its id, address and CPUs."""

    id: str
    address: str
    cpus: float


class RayCluster:
    """The cluster a run works on; leaving the block ends Ray only if it was started here."""

    def __init__(self, engine: EngineConfig, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._ours = False
        self.is_shared = True  # other machines may belong to it, now or later

    def __enter__(self) -> RayCluster:
        if ray.is_initialized():
            return self
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = self._engine.address or os.environ.get("RAY_ADDRESS") or _LOCAL
        if address == _LOCAL:
            self._start()
            self.is_shared = False
        else:
            self._join(address)
        self._ours = True
        return self

    def _start(self) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            before = frozenset(psutil.Process().children(recursive=True))
            try:
                ray.init(
                    address=_LOCAL,
                    **self._options(),
                    num_cpus=max(1, int(available_cpus())),
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=object_store_bytes(self._engine),
                )
                return
            except Exception as exc:
                # On a busy machine Ray gives its own daemons too little time; what it has
                # started by then it leaves running.
                _end([p for p in psutil.Process().children(recursive=True) if p not in before])
                if attempt == _START_ATTEMPTS:
                    raise AbortedError(f"cannot start Ray on this machine: {_line(exc)}") from exc
                _LOG.warning("Ray did not start (%s); trying again", _line(exc))

    def _join(self, address: str) -> None:
        join(address, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "namespace": f"textspot-{self._run_id}",
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours:
            ray.shutdown()

    def nodes(self) -> list[Node]:
        """Live nodes that have CPUs to give and have not been told to go."""
        leaving = self.leaving()
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]["CPU"])
            for node in ray.nodes()
            if node["Alive"]
            and node["Resources"].get("CPU", 0) > 0
            and node["NodeID"] not in leaving
        ]

    def leaving(self) -> frozenset[str]:
        """Ids of nodes that are being drained: preempted, or scaled down."""
        try:
            # Ray tells this by no public name; its own libraries use this one.
            from ray._private.state import state

            return frozenset(state.get_draining_nodes())
        except Exception:  # an older Ray: such a node is lost rather than drained
            return frozenset()


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def object_store_bytes(engine: EngineConfig) -> int:
    """Room for what a slot may have in flight, within what the machine has."""
    slots = engine.slots or 1
    wanted = int(slots * engine.max_bytes_in_flight * 1.25)
    limits = [int(psutil.virtual_memory().available * 0.3)]
    if os.path.isdir(_SHARED_MEMORY):  # noqa: PTH112
        limits.append(int(shutil.disk_usage(_SHARED_MEMORY).free * 0.9))
    return max(_MIN_STORE_BYTES, min(wanted, *limits))
