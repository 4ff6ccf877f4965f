"""The in-process engine: one slot in the caller's process, its models in one child."""

from __future__ import annotations

import time
from typing import Final

from textspot_ray.cluster.control import Control
from textspot_ray.cluster.local import ChildWorker
from textspot_ray.cluster.ports import Events, Worker
from textspot_ray.cluster.slot import Slot

_SLOT: Final = 0
_STEP_S: Final = 0.25


def run_local(control: Control) -> None:
    """Run until no task is left or a stop has drained the slot."""
    job = control.job

    def make_workers(events: Events) -> list[Worker]:
        return [ChildWorker(job.recipe.models, events, job.detect_threads)]

    slot = Slot(job, make_workers)
    try:
        _drive(control, slot)
    finally:
        slot.close()


def _drive(control: Control, slot: Slot) -> None:
    dispatch = control.dispatch
    wants, idle = True, True
    while True:
        coming = control.turn()
        draining = control.draining
        if draining and (idle or control.drain_is_over):
            return
        if idle and not coming and not dispatch.has_for(_SLOT):
            return
        task = dispatch.take(_SLOT) if wants and not draining else None
        began_s = time.monotonic()
        report = slot.step(
            [task] if task is not None else [],
            _STEP_S,
            more=not draining and dispatch.has_for(_SLOT),
            drain=draining,
        )
        control.on_report(_SLOT, report)
        wants, idle = report.wants, report.idle
        if idle and coming and time.monotonic() - began_s < 0.01:
            time.sleep(0.02)  # nothing to do until the listing brings a segment
