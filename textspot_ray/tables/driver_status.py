"""The status of a running driver: a small file on the output store, overwritten regularly.

``_textspot/status/<run>.json`` decides nothing: the tables are what records and snapshots say. It
shows what they cannot: who works now, how fast, and what is done but not committed yet. Each driver
has its own file; `read_statuses` reads them all and `fold_statuses` sums them up.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import psutil

from textspot_ray.storage.stores import Entry, Store
from textspot_ray.tables.commit.commit_record import STATE

STATUS: Final = f"{STATE}/status/"
VERSION: Final = 1
MAX_NODES: Final = 40  # named one by one
MAX_NOTE: Final = 300  # characters
_MISSED: Final = 3  # writes that a live driver may miss
_KEEP_S: Final = 3600.0
_CLOCK_S: Final = 60.0  # tolerance for a process's start time, by another clock
_LATE_S: Final = 60.0  # a driver normally takes several turns a second


class RunState(StrEnum):
    """What a driver is doing, or how it ended."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"
    DONE = "done"
    STOPPED = "stopped"  # drained after a signal
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self in (RunState.DONE, RunState.STOPPED, RunState.FAILED)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A driver's status, as written by itself.

    Attributes:
        run_id: The run.
        state: What it is doing.
        host, pid: Where the driver is.
        system: The boot and the process numbers' namespace that ``pid`` belongs to: machines and
            containers may share a host name. Empty if unknown.
        started_at: Unix time, seconds, by the driver's clock.
        written_at: When this was written.
        turned_at: When the driver's loop last ran; if that is long before ``written_at``, it hangs.
        every_s: Seconds until the next write.
        planning: Whether sources are still being listed.
        items_planned, items_done: Of the whole plan, as the driver knows it.
        open_items: Items of ``items_done`` whose shards are not committed yet.
        images, words, failed: Of this run.
        failures: Failed images of this run by kind.
        images_per_s: Over the last minute.
        eta_s: Seconds to go at that rate, None if unknown.
        waiting_s: Seconds without a working slot; 0 while there is one.
        shards_done: Committed by this run.
        slots: Slots by node; the first `MAX_NODES` by name.
        n_slots, n_nodes: All of them.
        stage_s, waiting, memory_bytes, retries: See `engine.progress.Progress`.
        note: Why it failed.
    """

    run_id: str
    state: RunState
    host: str
    pid: int
    started_at: float
    written_at: float
    turned_at: float
    every_s: float
    system: str = ""
    planning: bool = False
    items_planned: int = 0
    items_done: int = 0
    open_items: int = 0
    images: int = 0
    words: int = 0
    failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    images_per_s: float = 0.0
    eta_s: float | None = None
    waiting_s: float = 0.0
    shards_done: int = 0
    slots: Mapping[str, int] = field(default_factory=dict)
    n_slots: int = 0
    n_nodes: int = 0
    stage_s: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class SeenStatus:
    """A driver's status, and how old it is.

    Attributes:
        status: The status.
        age_s: Seconds since it was written, by the store's clock where it has one.
    """

    status: RunStatus
    age_s: float

    @property
    def gone(self) -> bool:
        """Whether a driver that claims to work was a process of this system that has ended."""
        return not self.status.state.ended and _is_gone(self.status)

    @property
    def stale(self) -> bool:
        """Whether a driver that claims to work has been silent for too long or is gone."""
        if self.gone:
            return True
        limit_s = _MISSED * self.status.every_s + 10.0  # a put may be tried again for a while
        return not self.status.state.ended and self.age_s > limit_s

    @property
    def live(self) -> bool:
        """Whether the driver is working, as far as is known."""
        return not self.status.state.ended and not self.stale

    @property
    def hangs(self) -> bool:
        """Whether the driver's process is alive but its loop does not run."""
        quiet_s = self.status.written_at - self.status.turned_at
        working = self.status.state in (RunState.WORKING, RunState.DRAINING)
        return self.live and working and quiet_s > _LATE_S


@dataclass(frozen=True, slots=True)
class Live:
    """All drivers that work on one output, summed up.

    Attributes:
        drivers, slots, nodes: How many. Drivers may share a node, which then counts once.
        images_per_s: Of all.
        open_items: Done by any and not committed yet.
        planning: Whether one of them still lists sources.
    """

    drivers: int
    slots: int
    nodes: int
    images_per_s: float
    open_items: int
    planning: bool


def this_system() -> str:
    """The boot and namespace in which this process's id is valid; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def is_finished(seen: Iterable[SeenStatus], *, planned: bool) -> bool:
    """Whether the sources were listed completely, judged by the drivers' statuses.

    Even if all planned shards are committed, the plan may not cover the whole archive: a driver may
    still be listing, or the last one may have ended before it had listed everything.

    Args:
        seen: The statuses.
        planned: Whether anything is planned; if not, only a run that came to its end has finished.
    """
    ordered = sorted(seen, key=lambda one: one.status.started_at)
    for one in reversed(ordered):
        status = one.status
        if status.state is RunState.DONE:
            return True  # it has listed everything again
        if one.live or status.state.ended or status.planning or not status.items_planned:
            return False
    return planned


def _is_gone(status: RunStatus) -> bool:
    """Whether the driver's process was on this machine and has ended."""
    if status.host != platform.node() or not status.system or status.system != this_system():
        return False
    try:
        created_at = psutil.Process(status.pid).create_time()
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    return bool(created_at > status.started_at + _CLOCK_S)  # another process got its id


def put_status(store: Store, status: RunStatus) -> None:
    """Write a driver's status over its last one.

    Raises:
        StorageError: It cannot be written.
    """
    store.put(f"{STATUS}{status.run_id}.json", status_to_json(status))


def status_to_json(status: RunStatus) -> bytes:
    """The stored form; a few KiB however many nodes there are."""
    data = msgspec.to_builtins(status)
    named = sorted(status.slots.items())[:MAX_NODES]
    data.update(version=VERSION, slots=dict(named), note=status.note[:MAX_NOTE])
    for name in ("stage_s", "waiting", "retries"):
        data[name] = {key: round(value, 3) for key, value in data[name].items()}
    return msgspec.json.format(msgspec.json.encode(data), indent=1)


def read_statuses(store: Store, now: float | None = None) -> list[SeenStatus]:
    """Every driver's status, the newest first; unreadable files are left out.

    Raises:
        StorageError: The store cannot be listed.
    """
    moment = time.time() if now is None else now
    seen = []
    for entry in list(store.list(STATUS)):
        status = _read(store, entry)
        if status is not None:
            # The store's time stamp: its clock is closer to ours than some driver's.
            age_s = max(0.0, moment - (entry.mtime or status.written_at))
            seen.append(SeenStatus(status, age_s))
    return sorted(seen, key=lambda one: (one.age_s, one.status.run_id))


def fold_statuses(seen: Iterable[SeenStatus]) -> Live:
    """The drivers that are working, summed up."""
    live = [one.status for one in seen if one.live]
    named = {node for status in live for node in status.slots}
    unnamed = sum(max(0, status.n_nodes - len(status.slots)) for status in live)
    return Live(
        drivers=len(live),
        slots=sum(status.n_slots for status in live),
        nodes=len(named) + unnamed,
        images_per_s=sum(status.images_per_s for status in live),
        open_items=sum(status.open_items for status in live),
        planning=any(status.planning for status in live),
    )


def prune_statuses(store: Store, keep_s: float = _KEEP_S) -> int:
    """Delete statuses of runs that ended or fell silent long ago; returns how many.

    A driver that was only cut off will write its status again.
    """
    old = [one for one in read_statuses(store) if not one.live and one.age_s > keep_s]
    for one in old:
        store.delete(f"{STATUS}{one.status.run_id}.json")
    return len(old)


def _read(store: Store, entry: Entry) -> RunStatus | None:
    if not entry.path.endswith(".json"):
        return None
    try:
        return msgspec.json.decode(store.read(entry.path), type=RunStatus)
    except (FileNotFoundError, UnicodeDecodeError, msgspec.MsgspecError):
        return None  # deleted meanwhile, or of another version; it decides nothing
