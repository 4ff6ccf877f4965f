"""Starting Ray on this machine, or joining a cluster that runs already."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import psutil
import ray

from textspot_ray.cluster.sizing import available_cpus
from textspot_ray.config import EngineConfig
from textspot_ray.errors import AbortedError, UsageError

_SHARED_MEMORY: Final = "/dev/shm"
_KNOCK_S: Final = 10.0
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

    def __enter__(self) -> RayCluster:
        if ray.is_initialized():
            return self
        address = self._engine.address or os.environ.get("RAY_ADDRESS") or "local"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        local: dict[str, Any] = {}
        if address == "local":
            local = {
                "num_cpus": max(1, int(available_cpus())),
                "num_gpus": 0,
                "include_dashboard": False,
                "object_store_memory": object_store_bytes(self._engine),
            }
        else:
            knock(address)
        try:
            ray.init(
                address=address,
                namespace=f"textspot-{self._run_id}",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **local,
            )
        except (ConnectionError, TimeoutError) as exc:
            raise UsageError(_no_answer(address)) from exc
        except (RuntimeError, ValueError, OSError) as exc:
            reason = " ".join(str(exc).split())[:300]
            doing = "start Ray on this machine" if address == "local" else f"join Ray at {address}"
            raise AbortedError(f"cannot {doing}: {reason}") from exc
        self._ours = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours:
            ray.shutdown()

    def nodes(self) -> list[Node]:
        """Live nodes that have CPUs to give."""
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]["CPU"])
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) > 0
        ]


def knock(address: str) -> None:
    """Find out in seconds whether anything listens; Ray itself would try for minutes.

    Raises:
        UsageError: Nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # ``auto``
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except OSError as exc:
        raise UsageError(f"{_no_answer(address)} ({exc})") from exc


def _no_answer(address: str) -> str:
    return f"no Ray cluster answers at {address}: check the address and that the head runs"


def object_store_bytes(engine: EngineConfig) -> int:
    """Room for what a slot may have in flight, within what the machine has."""
    slots = engine.slots or 1
    wanted = int(slots * engine.max_bytes_in_flight * 1.25)
    limits = [int(psutil.virtual_memory().available * 0.3)]
    if os.path.isdir(_SHARED_MEMORY):  # noqa: PTH112
        limits.append(int(shutil.disk_usage(_SHARED_MEMORY).free * 0.9))
    return max(_MIN_STORE_BYTES, min(wanted, *limits))
