"""Checks of the machine itself: CPU, cores, memory, disk, limits, versions."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from textspot_ray.config import EngineConfig
from textspot_ray.deploy.pod_size import GIB, worker_size
from textspot_ray.doctor.finding import CheckResult, fail, ok, warn
from textspot_ray.engine.sizing import available_cpus, slots_of_node
from textspot_ray.machine import BF16_FLAGS, INT8_FLAGS, cpu_flags
from textspot_ray.spotting.bundle import cache_folder
from textspot_ray.wording import counted

_PACKAGES: Final = ("textspot-ray", "openvino", "ray", "numpy", "pyarrow", "duckdb")
_MIN_FILES: Final = 4096  # Ray opens a socket or two an actor, storage one a request
_MIN_FREE: Final = (("cache", GIB), ("tmp", 2 * GIB))


def check_cpu(flags: frozenset[str] | None = None) -> Iterator[CheckResult]:
    """Which precisions this CPU is fast at.

    Args:
        flags: Instruction sets, instead of this machine's.
    """
    flags = cpu_flags() if flags is None else flags
    if not flags:
        yield warn(
            "cpu", f"{platform.machine()}, features unknown", "measure: python -m jobs.bench"
        )
        return
    if "avx2" not in flags and "asimd" not in flags:
        yield warn("cpu", "no AVX2", "works, several times slower; take a CPU from after 2015")
        return
    int8 = [flag for flag in INT8_FLAGS if flag in flags]
    bf16 = [flag for flag in BF16_FLAGS if flag in flags]
    wide = "avx512 yes" if "avx512f" in flags else "avx512 no"
    found = f"{wide}, int8 by {' '.join(int8) or '-'}, bf16 by {' '.join(bf16) or '-'}"
    if not int8 and not bf16:
        yield warn("cpu", found, "int8 and bf16 gain little here; a CPU with VNNI or AMX is faster")
    else:
        yield ok("cpu", found)


def check_threads(engine: EngineConfig) -> Iterator[CheckResult]:
    """Cores by affinity and quota, and how the engine would use them."""
    cpus = available_cpus()
    slots, shape = slots_of_node(cpus, engine)
    online = os.cpu_count() or 1
    text = (
        f"{cpus:g} of {online} cores usable, {counted(slots, 'slot')} of {shape.cpus:g}, "
        f"{counted(shape.threads.detector, 'detector thread')}"
    )
    if slots < 1:
        yield fail("threads", text, "lower engine.cpus_per_slot or give this machine more cores")
        return
    if engine.threads is not None and engine.threads * engine.detectors_per_slot > shape.cpus + 0.5:
        yield warn("threads", text, f"engine.threads={engine.threads} is more than a slot has")
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 2 * online:
        yield warn("threads", f"{text}; load {load:.0f}", "other work competes for the cores")
        return
    yield ok("threads", text)


def check_memory(engine: EngineConfig, available_bytes: int | None = None) -> Iterator[CheckResult]:
    """Memory against what the slots may use at worst.

    Args:
        engine: Gives the limits.
        available_bytes: Instead of what the machine says.
    """
    free = psutil.virtual_memory().available if available_bytes is None else available_bytes
    cpus = max(1, int(available_cpus()))
    slots, _ = slots_of_node(float(cpus), engine)
    if slots < 1:
        return  # said by check_threads
    needed = worker_size(cpus, engine).memory_bytes
    most = f"{needed / GIB:.0f} GiB at worst for {counted(slots, 'slot')}"
    text = f"{free / GIB:.1f} GiB available, {most}"
    if free < needed:
        yield warn(
            "memory", text, "set engine.slots, or lower engine.actor_max_uss_bytes or in_flight"
        )
    else:
        yield ok("memory", text)


def check_disk(
    engine: EngineConfig, folders: dict[str, Path] | None = None
) -> Iterator[CheckResult]:
    """Room for compiled models, Ray's temporary files and its object store.

    Args:
        engine: Gives the object store's size.
        folders: Instead of the cache, the temporary folder and shared memory, by name.
    """
    where = folders or {
        "cache": cache_folder(),
        "tmp": Path(tempfile.gettempdir()),
        "shm": Path("/dev/shm"),
    }
    wanted = {**dict(_MIN_FREE), "shm": int(engine.max_bytes_in_flight * 1.25)}
    fixes = {
        "cache": "free some, or set TEXTSPOT_CACHE to another disk",
        "tmp": "free some, or start Ray with --temp-dir elsewhere",
        "shm": "run the container with a larger /dev/shm (--shm-size), or Ray's store goes to disk",
    }
    for name, folder in where.items():
        there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
        if there is None:
            continue
        if not os.access(there, os.W_OK):
            yield fail("disk", f"{name} {folder} cannot be written", fixes[name])
            continue
        free = shutil.disk_usage(there).free
        text = f"{name} {folder}: {free / GIB:.1f} GiB free"
        if free < wanted[name]:
            yield warn("disk", f"{text} of {wanted[name] / GIB:.1f} wanted", fixes[name])
        else:
            yield ok("disk", text)


def check_limits() -> Iterator[CheckResult]:
    """How many files a process may open."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if not unlimited and soft < _MIN_FILES:
        most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        yield warn("limits", f"{soft} open files allowed", f"ulimit -n 65536 (at most {most})")
    else:
        yield ok("limits", f"{'unlimited' if unlimited else soft} open files allowed")


def check_versions() -> Iterator[CheckResult]:
    """Python and the packages that results and the cluster depend on."""
    have, missing = [], []
    for package in _PACKAGES:
        try:
            have.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    # a checkout on PYTHONPATH has no metadata of its own
    missing = [package for package in missing if package != "textspot-ray"]
    text = f"Python {platform.python_version()}, {', '.join(have)}"
    if missing:
        yield fail("versions", f"{', '.join(missing)} missing", "pip install textspot-ray")
    else:
        yield ok("versions", text)
