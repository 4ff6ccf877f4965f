"""The failure policy: which image is to blame when a worker dies, and when the job must stop.

When a worker dies, the images it was working on become suspects. Each suspect runs again alone; one
that kills its worker twice while alone is quarantined. Deaths from outside (killed, out of memory,
input lost) blame no image, but an image that meets `max_deaths` of them alone is given up as well.
Too many deaths without a finished image in between stop the job; from the second on, a fresh worker
is first tested with a blank image, so that a row of hostile images is not mistaken for a broken
worker.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from textspot_ray.engine.slot.events import SlotEvent
from textspot_ray.engine.slot.open_shards import PageTask
from textspot_ray.errors import AbortedError
from textspot_ray.records import ErrorKind, ImageError, ImageResult, Item, Stage

ALONE_DEATHS: Final = 2
MAX_FAULTY_IN_A_ROW: Final = 50
_OURS: Final = frozenset({ErrorKind.CRASHED, ErrorKind.STALLED, ErrorKind.INTERNAL})


class FailurePolicy:
    """Counts what goes wrong in a slot and decides what it means."""

    def __init__(self, max_deaths: int) -> None:
        self._max_deaths = max_deaths
        self._deaths_in_a_row = 0
        self._faulty_in_a_row = 0
        self._stuck_reads_in_a_row = 0
        self._events: deque[SlotEvent] = deque(maxlen=100)
        self.suspects: deque[PageTask] = deque()

    @property
    def wants_probe(self) -> bool:
        """Whether a fresh worker must first be tested with a blank image."""
        return self._deaths_in_a_row >= 2

    def probed(self) -> None:
        """A worker did the blank image."""
        self._deaths_in_a_row = 0

    def record(self, message: str, task: PageTask | None = None) -> None:
        """Keep an event for the log."""
        self._events.append(SlotEvent(message) if task is None else _about(task, message))

    def take_slot_events(self) -> tuple[SlotEvent, ...]:
        """Events since the last call."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def finished(self, result: ImageResult) -> None:
        """Note that an image is finished.

        Raises:
            AbortedError: Too many images in a row failed by what looks like a fault of ours.
        """
        error = result.error
        if error is not None and error.kind in _OURS:
            self._faulty_in_a_row += 1
            if self._faulty_in_a_row >= MAX_FAULTY_IN_A_ROW:
                raise AbortedError(
                    f"{MAX_FAULTY_IN_A_ROW} images in a row failed by a fault that looks like the "
                    f"program's, not theirs; the last: {result.item.image_id}: {error.message}"
                )
        elif error is None or error.stage is not Stage.READ:
            self._deaths_in_a_row = self._faulty_in_a_row = 0

    def ended(
        self,
        worker: str,
        reason: str,
        kind: ErrorKind,
        tasks: list[tuple[PageTask, Stage]],
        *,
        alone: bool,
        blame: bool,
    ) -> list[tuple[PageTask, ImageError]]:
        """Decide what a worker's death means for the tasks it was working on.

        Args:
            worker: Its name.
            reason: Why it died, in words.
            kind: Of the error that a quarantined image gets.
            tasks: What it was working on, and at which stage.
            alone: Whether only one image was in flight.
            blame: Whether an image can be the cause.

        Returns:
            The tasks to quarantine, with their errors; the others become suspects and run again.

        Raises:
            AbortedError: Workers died too often without a finished image in between.
        """
        self._deaths_in_a_row += 1
        for task, _ in tasks:
            self.record(f"{worker} ended: {reason}; this image was with it", task)
        if not tasks:
            self.record(f"{worker} ended: {reason}; no image was with it")
        if self._deaths_in_a_row >= self._max_deaths:
            raise AbortedError(
                f"the {worker} process ended {self._deaths_in_a_row} times without a finished "
                f"image in between; the last time: {reason}"
            )
        quarantined = []
        for task, stage in tasks:
            if alone and blame:
                task.deaths_alone += 1
            elif alone:
                task.faults_alone += 1
            if task.deaths_alone < ALONE_DEATHS and task.faults_alone < self._max_deaths:
                self.suspects.append(task)
                continue
            tries = task.deaths_alone + task.faults_alone
            message = f"the {worker} process, alone with this image, ended {tries} times: {reason}"
            quarantined.append((task, ImageError(stage, kind, message, tries)))
        return quarantined

    def raised(
        self, task: PageTask, stage: Stage, message: str, *, lost: bool
    ) -> ImageError | None:
        """A call ended in an exception: the image's error, or None if it is to run again.

        Args:
            task: The page.
            stage: Where.
            message: What was raised, in one line.
            lost: Whether its input was lost on the way, which is no image's fault.
        """
        if lost and task.faults_alone < self._max_deaths:
            task.faults_alone += 1
            self.record(f"{message}; again", task)
            self.suspects.append(task)
            return None
        return ImageError(stage, ErrorKind.INTERNAL, message)

    def read(self) -> None:
        """Storage has answered."""
        self._stuck_reads_in_a_row = 0

    def read_stalled(self, item: Item, limit_s: float) -> ImageError:
        """Storage has not answered in time.

        Raises:
            AbortedError: It happened too often in a row.
        """
        message = f"storage gave no data within {limit_s:.0f} s"
        self._events.append(SlotEvent(message, image=item.image_id))
        self._stuck_reads_in_a_row += 1
        if self._stuck_reads_in_a_row >= self._max_deaths:
            raise AbortedError(
                f"{self._stuck_reads_in_a_row} reads in a row stalled; the last: "
                f"{item.image_id}: {message}"
            )
        return ImageError(Stage.READ, ErrorKind.TIMEOUT, message)


def _about(task: PageTask, message: str) -> SlotEvent:
    image, shard = task.encoded.item.image_id, task.shard.shard.id
    return SlotEvent(message, image=image, shard=str(shard), attempt=task.attempt)
