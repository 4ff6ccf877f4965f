"""What a Kubernetes pod or a cloud node asks for, so that whole slots fit into it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from textspot_ray.config import EngineConfig
from textspot_ray.engine.sizing import slots_of_node
from textspot_ray.errors import UsageError

GIB: Final = 2**30
RUNNER_BYTES: Final = GIB  # reader's window, a shard's rows, Parquet buffers
NODE_BYTES: Final = GIB  # raylet, its agents and idle workers
_STORE_SLACK: Final = 1.25  # the same as `raycluster.object_store_bytes`
_MIN_STORE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """A worker pod: whole CPUs, and memory for its slots at their limits.

    Attributes:
        cpus: Requested, limited, and given to Ray.
        slots: How many it holds.
        cpus_per_slot: Of each.
        memory_bytes: Of the container; shared memory counts.
        object_store_bytes: Of Ray's object store, inside ``memory_bytes``.
    """

    cpus: int
    slots: int
    cpus_per_slot: float
    memory_bytes: int
    object_store_bytes: int


def worker_size(cpus: int, engine: EngineConfig) -> WorkerSize:
    """Size a worker of that many CPUs by the rules that place the slots on it.

    Memory is the sum of what may be used at worst: each model actor up to the limit at which it is
    recycled, the runners, the object store, and Ray itself.

    Raises:
        UsageError: Not even one slot fits.

    >>> worker_size(16, EngineConfig()).slots
    2
    """
    slots, shape = slots_of_node(float(cpus), engine)
    if slots < 1:
        raise UsageError(
            f"a worker of {cpus} CPUs has no room for a slot of {shape.cpus:g}: raise "
            "--worker-cpus or lower engine.cpus_per_slot"
        )
    store = max(_MIN_STORE_BYTES, int(slots * engine.max_bytes_in_flight * _STORE_SLACK))
    actors = slots * (engine.detectors_per_slot + 1) * engine.actor_max_uss_bytes
    total = NODE_BYTES + slots * RUNNER_BYTES + actors + store
    return WorkerSize(
        cpus=cpus,
        slots=slots,
        # rounded down: three slots of 7.667 do not fit 23 CPUs
        cpus_per_slot=engine.cpus_per_slot or math.floor(shape.cpus * 1000) / 1000,
        memory_bytes=math.ceil(total / GIB) * GIB,
        object_store_bytes=store,
    )
