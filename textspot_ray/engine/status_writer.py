"""Writes the driver's status file regularly, from its own thread.

Slow or failing storage must neither delay nor end the run: if a write fails, the next one is tried
at its usual time, with the newest figures.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from textspot_ray.redaction import redact_text
from textspot_ray.tables.driver_status import (
    RunState,
    RunStatus,
    prune_statuses,
    put_status,
    this_system,
)

if TYPE_CHECKING:
    from textspot_ray.engine.progress import Progress
    from textspot_ray.storage.stores import Store

_LOG = logging.getLogger(__name__)
_FIRST_S: Final = 2.0
_LAST_S: Final = 10.0  # longest wait for the last write


class StatusWriter:
    """Keeps ``_textspot/status/<run>.json`` up to date; call it with the run's progress.

    The first writes follow each other quickly, later ones at growing intervals, so that a new run
    is visible within seconds.

    Args:
        store: The output folder; preferably its own instance, with few retries.
        run_id: The run.
        interval_s: Seconds between two writes, after the first few.
    """

    def __init__(self, store: Store, run_id: str, interval_s: float) -> None:
        self._store = store
        self._run_id = run_id
        self._interval_s = interval_s
        self._every_s = min(_FIRST_S, interval_s)
        self._started_at = time.time()
        self._last_loop_at = self._started_at
        self._state = RunState.STARTING
        self._progress: Progress | None = None
        self._note = ""
        self._failures = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def __call__(self, progress: Progress, *, draining: bool = False) -> None:
        """Take the newest figures; does not block."""
        self._progress = progress
        self._last_loop_at = time.time()
        self._state = RunState.DRAINING if draining else RunState.WORKING

    def close(self, state: RunState, note: str = "") -> None:
        """Write how the run ended; waits a few seconds for that at most."""
        if self._end.is_set():
            return
        self._state, self._note = state, " ".join(note.split())
        self._last_loop_at = time.time()
        self._end.set()
        self._thread.join(_LAST_S)

    def status(self) -> RunStatus:
        """The status now."""
        base = RunStatus(
            run_id=self._run_id,
            state=self._state,
            host=platform.node(),
            pid=os.getpid(),
            started_at=self._started_at,
            written_at=time.time(),
            turned_at=self._last_loop_at,
            every_s=self._every_s,
            system=this_system(),
            note=self._note,
        )
        return base if self._progress is None else _with_figures(base, self._progress)

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # old files are no reason to write none
            prune_statuses(self._store)
        while True:
            ending = self._end.is_set()
            self._write()
            if ending:
                return
            self._end.wait(self._every_s)
            self._every_s = min(1.5 * self._every_s, self._interval_s)

    def _write(self) -> None:
        try:
            put_status(self._store, self.status())
        except Exception as exc:
            self._failures += 1
            if self._failures == 1:
                _LOG.warning("the status file could not be written: %s", redact_text(str(exc)))
            return
        if self._failures:
            _LOG.warning("the status file is written again after %d misses", self._failures)
            self._failures = 0


def _with_figures(base: RunStatus, progress: Progress) -> RunStatus:
    """The status with all figures that progress has under the same names."""
    known = {field.name for field in fields(RunStatus)}
    same = [field.name for field in fields(progress) if field.name in known]
    eta_s = progress.eta_s
    figures = {name: getattr(progress, name) for name in same} | {
        "images_per_s": round(progress.images_per_s, 3),
        "eta_s": None if eta_s is None else round(eta_s, 1),
        "n_slots": sum(progress.slots.values()),
        "n_nodes": len(progress.slots),
    }
    return replace(base, **figures)
