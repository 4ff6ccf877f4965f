"""Listing and planning in their own thread, so that work starts while a listing goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from textspot_ray.records import Item, Skipped
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import PlanSummary, update_plan

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig

Listing = Callable[[], Iterable[Item | Skipped]]


class _Stopped(Exception):
    """The run was asked to stop while listing."""


class Planning:
    """Brings the plan up to date with the sources.

    Attributes:
        summary: What was found; None until the end, and after a stop.
    """

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        run_id: str,
        listing: Listing,
        redact: Callable[[str], str],
    ) -> None:
        self._plan = plan
        self._config = config
        self._run_id = run_id
        self._listing = listing
        self._redact = redact
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._segments: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.summary: PlanSummary | None = None
        self._thread = threading.Thread(target=self._run, name="planning", daemon=True)
        self._thread.start()

    @property
    def active(self) -> bool:
        """Whether the listing goes on."""
        return self._thread.is_alive()

    def take_segments(self) -> list[int]:
        """Numbers of segments added since the last call.

        Raises:
            TextspotError: Listing or planning failed.
        """
        # Checked before the queue, so that a segment added just before the end is not missed.
        ended = not self.active
        segments = []
        while not self._segments.empty():
            segments.append(self._segments.get())
        if ended and not segments and self._error is not None:
            raise self._error
        return segments

    def stop(self) -> None:
        """Stop listing; stored segments stay."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self.summary = update_plan(
                self._plan,
                self._until_stopped(),
                self._config.output,
                self._run_id,
                on_changed=self._config.source.on_changed,
                on_segment=lambda segment: self._segments.put(segment.seq),
            )
        except _Stopped:
            return
        except BaseException as exc:  # raised in the run's own thread by take_segments
            self._error = exc

    def _until_stopped(self) -> Iterator[Item | Skipped]:
        for entry in self._listing():
            if self._stop.is_set():
                raise _Stopped
            if isinstance(entry, Item) and entry.error is not None:  # goes into the plan
                error = replace(entry.error, message=self._redact(entry.error.message))
                entry = replace(entry, error=error)
            yield entry
