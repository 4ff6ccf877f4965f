"""Pages in flight: which are ready, started or detected, within the window and the byte budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from textspot_ray.engine.slot.limits import Limits
from textspot_ray.engine.slot.open_shards import PageTask
from textspot_ray.engine.slot.ports import EXPECTED_FEATURE_BYTES, PageWork
from textspot_ray.engine.slot.worker_pool import WorkerHandle, WorkerPool
from textspot_ray.records import DetectedPage, Stage

_CALL_BYTES: Final = 64 * 2**20  # encoded bytes, pixels and features; a larger page goes alone
_READ_CALLS: Final = 2  # one is read while the next is fetched


class Flow:
    """Sends pages to workers, several per call where a worker takes batches.

    What is ready goes as soon as a worker takes a call; nothing waits for a batch to fill. At most
    ``window`` pages are in flight. Bytes for their features are reserved before detection and given
    back when the page is finished; recognition reserves nothing, so there can be no deadlock. Bytes
    for pixels and features inside the detector are reserved while it has the page; a page that
    needs more than the whole budget runs when no other is in flight. Suspects run alone.

    Args:
        workers: Of the slot.
        limits: Of calls in flight per detector, and of bytes.
        weigh: Estimates how much work an encoded image is for the detector.
    """

    def __init__(
        self,
        workers: WorkerPool,
        limits: Limits,
        weigh: Callable[[bytes], PageWork],
    ) -> None:
        self._workers = workers
        self._in_flight = limits.in_flight
        self._max_feature_bytes = limits.max_feature_bytes
        self._max_detect_bytes = limits.max_detect_bytes * max(1, len(workers.detectors))
        self._weigh = weigh
        self._feature_bytes = 0
        self._detect_bytes = 0
        self._detected: deque[PageTask] = deque()  # waiting for a recogniser
        self._active: dict[int, PageTask] = {}  # started and not finished, by ticket
        self.ready: deque[PageTask] = deque()  # read, not started

    @property
    def window(self) -> int:
        """How many pages may be in flight."""
        return self._in_flight * sum(handle.batch for handle in self._workers.detectors)

    @property
    def alone(self) -> bool:
        """Whether only one page is in flight."""
        return len(self._active) == 1

    @property
    def holds_features(self) -> bool:
        """Whether workers hold features that have not been sent to a recogniser yet."""
        return bool(self._detected)

    @property
    def waiting(self) -> int:
        """How many pages are not started."""
        return sum(task.n_pages for task in self.ready)

    @property
    def detecting(self) -> int:
        """How many pages are with the detector."""
        return sum(task.detected is None for task in self._active.values())

    @property
    def recognising(self) -> int:
        """How many pages are with the recogniser or wait for it."""
        return sum(task.detected is not None for task in self._active.values())

    def find(self, ticket: int) -> PageTask | None:
        """The page of a ticket, None if that attempt is over."""
        return self._active.get(ticket)

    def dispatch(self, suspects: deque[PageTask]) -> None:
        """Send what can be sent."""
        while self._detected and self._recognise():
            pass
        while suspects and suspects[0].shard.dropped:
            suspects.popleft()
        if suspects:
            if not self._active:
                self._detect(suspects, 1)
            return
        if any(task.suspect for task in self._active.values()):
            return
        window = self.window
        while self.ready and self._has_room(self.ready[0], window):
            if not self._detect(self.ready, window):
                return

    def detected(self, task: PageTask, page: DetectedPage, features: Any) -> None:
        """Take the boxes found on a page; they are read next.

        Args:
            task: The page.
            page: What the detector found.
            features: For the recogniser, as the worker handed them out.
        """
        task.detected, task.features = page, features
        self._reserve_detector(task, 0)
        self._reserve(task, page.feature_bytes)
        self._detected.append(task)

    def end(self, task: PageTask) -> None:
        """A page is no longer in flight: finished, or to be run again."""
        self._active.pop(task.ticket, None)
        if task in self._detected:
            self._detected.remove(task)
        self._reserve(task, 0)
        self._reserve_detector(task, 0)
        task.features = None

    def lost_with(self, handle: WorkerHandle) -> list[tuple[PageTask, Stage]]:
        """Pages that are lost with a worker, each with the stage it was at."""
        tasks = [
            (self._active[ticket], call.stage)
            for ticket, call in handle.calls.items()
            if ticket in self._active
        ]
        # Features kept in the worker's process are lost with it; on Ray they outlive it.
        tasks += [(task, Stage.RECOGNISE) for task in self._detected if task.features is None]
        return tasks

    def _has_room(self, task: PageTask, window: int) -> bool:
        if not self._active:
            return True
        if len(self._active) >= window:
            return False
        if self._feature_bytes + EXPECTED_FEATURE_BYTES > self._max_feature_bytes:
            return False
        return self._detect_bytes + self._work_of(task).n_bytes <= self._max_detect_bytes

    def _work_of(self, task: PageTask) -> PageWork:
        if task.work is None:
            assert task.encoded.data is not None
            task.work = self._weigh(task.encoded.data)
        return task.work

    def _detect(self, tasks: deque[PageTask], window: int) -> bool:
        max_calls = max(1, self._in_flight - 1)
        handle = self._workers.least_busy(Stage.DETECT, max_calls)
        if handle is None:
            return False
        room = (self._max_feature_bytes - self._feature_bytes) // EXPECTED_FEATURE_BYTES
        room = min(room, len(tasks), window - len(self._active))
        # Shared among the calls that can be sent now: each call is one thread's work.
        most = min(handle.batch, -(-room // self._workers.free_calls(Stage.DETECT, max_calls)))
        batch: list[PageTask] = []
        n_bytes, weight = 0, 0.0
        while tasks and len(batch) < max(1, most) and self._has_room(tasks[0], window):
            work, data = self._work_of(tasks[0]), tasks[0].encoded.data
            assert data is not None
            n_bytes += len(data) + work.n_bytes
            if batch and n_bytes > _CALL_BYTES:
                break
            weight += work.passes
            task = tasks.popleft()
            batch.append(task)
            self._active[task.ticket] = task
            self._reserve(task, EXPECTED_FEATURE_BYTES)
            self._reserve_detector(task, work.n_bytes)
        handle.open([task.ticket for task in batch], Stage.DETECT, weight)
        handle.worker.detect([(task.ticket, task.encoded.data or b"", task.page) for task in batch])
        return True

    def _recognise(self) -> bool:
        handle = self._workers.least_busy(Stage.RECOGNISE, _READ_CALLS)
        if handle is None:
            return False
        batch: list[PageTask] = []
        n_bytes, weight = 0, 0
        while self._detected and len(batch) < handle.batch:
            page = self._detected[0].detected
            assert page is not None
            n_bytes += page.feature_bytes
            if batch and n_bytes > _CALL_BYTES:
                break
            weight += len(page.detections)
            batch.append(self._detected.popleft())
        handle.open([task.ticket for task in batch], Stage.RECOGNISE, weight)
        handle.worker.recognise([(task.ticket, task.features) for task in batch])
        return True

    def _reserve(self, task: PageTask, size: int) -> None:
        self._feature_bytes += size - task.reserved
        task.reserved = size

    def _reserve_detector(self, task: PageTask, size: int) -> None:
        self._detect_bytes += size - task.detector_reserved
        task.detector_reserved = size
