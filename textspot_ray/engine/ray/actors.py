"""The actors of a slot: detector, recogniser, and the runner that owns both.

Ray restarts and retries nothing here: which image is to blame must be known before anything runs
again, so the runner starts fresh actors itself. Results are task returns, owned by the runner, and
outlive the actor that made them.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from textspot_ray.engine.local_child import Loaded
from textspot_ray.engine.sizing import SlotShape
from textspot_ray.engine.slot.ports import (
    Answered,
    Died,
    Events,
    Models,
    Raised,
    Refused,
    Started,
    Worker,
)
from textspot_ray.engine.slot.process_setup import (
    MemoryGauge,
    limit_library_threads,
    use_default_crash_handlers,
)
from textspot_ray.engine.slot.slot import Job, Report, Slot
from textspot_ray.errors import TextspotError, UsageError
from textspot_ray.records import DetectedPage, Readings, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textspot_ray.tables.plan.plan import Task

_MAX_BATCH: Final = 8  # pages per call; up to here a larger batch clearly lowers the cost per image
# Without task events the GCS does not keep a record of every call (900 bytes per image).
ALONE: Final[dict[str, Any]] = {
    "max_restarts": 0,
    "max_task_retries": 0,
    "enable_task_events": False,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of each page of a call (a string: its exception), and the process's memory."""

    values: tuple[DetectedPage | Readings | str, ...]
    uss_bytes: int


class _ModelActor:
    """Base of the model actors; they load after construction, so that errors can be reported."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._gauge = MemoryGauge()

    def load(self) -> Loaded:
        limit_library_threads()
        use_default_crash_handlers()
        try:
            self._load()
        except TextspotError as exc:
            return Loaded(exc)
        except ImportError as exc:
            return Loaded(UsageError(not_installed(exc.name or str(exc))))
        return Loaded(pid=os.getpid())

    def _load(self) -> None:
        raise NotImplementedError

    def _outcome(self, values: list[DetectedPage | Readings | str]) -> Outcome:
        return Outcome(tuple(values), self._gauge.uss_bytes())


class DetectorActor(_ModelActor):
    """Decodes and detects; several calls at a time, so that decoding overlaps inference."""

    _file: tuple[str, bytes] | None = None  # id of Ray's object, and its bytes

    def _load(self) -> None:
        self._detector = self._models.detector()

    @ray.method(num_returns=2)  # type: ignore[untyped-decorator]
    def detect(self, pages: list[tuple[bytes | list[Any], int]]) -> tuple[Outcome, Any]:
        """Detect pages; their features are a separate return, one for all of them.

        Args:
            pages: The encoded image and the number of the page, from 0. Files of several pages
                come as a reference in a list, which Ray does not resolve: it is fetched once.
        """
        values: list[DetectedPage | Readings | str] = []
        features: list[Any] = []
        for data, page in pages:
            value: DetectedPage | str
            try:
                value, found = self._detector.detect(self._bytes_of(data), page)
            except _LOST:
                raise  # no page of the call counts as done; all of them are repeated
            except Exception as exc:  # a bug: the runner makes it the image's error
                value, found = _told(exc), None
            values.append(value)
            features.append(found)
        return self._outcome(values), features

    def _bytes_of(self, data: bytes | list[Any]) -> bytes:
        file = None
        if isinstance(data, list):
            file, name = self._file, data[0].hex()
            if file is None or file[0] != name:
                file = name, ray.get(data[0])
            data = file[1]
        self._file = file  # single images are not held
        return data


class RecognizerActor(_ModelActor):
    """Reads the words of features."""

    def _load(self) -> None:
        self._recognizer = self._models.recognizer()

    def read(self, pages: list[tuple[int, int]], *features: list[Any]) -> Outcome:
        """Readings of pages' features.

        Args:
            pages: Index into ``features``, and of the page in it; empty to read a blank region, as
                a health check.
            features: As `DetectorActor.detect` returned them.
        """
        values: list[DetectedPage | Readings | str] = []
        if not pages:
            pages, features = [(0, 0)], ([self._recognizer.blank()],)
        for call, page in pages:
            try:
                values.append(self._recognizer.read(features[call][page]))
            except Exception as exc:
                values.append(_told(exc))
        return self._outcome(values)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class ActorWorker:
    """A model actor as the runner's `ports.Worker`.

    Args:
        name: For messages.
        stage: What it does.
        models: What it loads.
        events: Where its answers go.
        options: Ray's, of the actor.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        models: Models,
        events: Events,
        options: dict[str, Any],
    ) -> None:
        self.name = name
        self.max_batch = _MAX_BATCH
        self.stages = frozenset({stage})
        self._class = ray.remote(DetectorActor if stage is Stage.DETECT else RecognizerActor)
        self._models = models
        self._events = events
        self._options = options
        self._generation = 0
        self._actor: Any = None
        self._pid: int | None = None
        self._detecting: set[int] = set()  # tickets
        self._file: tuple[bytes, Any] | None = None  # of several pages, and Ray's reference to it

    @property
    def pid(self) -> int | None:
        """The actor's process, on this node, once its models are loaded."""
        return self._pid

    def start(self, generation: int) -> None:
        """Start a fresh actor."""
        self._generation = generation
        self._pid = None
        self._actor = self._class.options(**ALONE, **self._options).remote(self._models)

        def loaded(answer: Loaded) -> None:
            self._on_loaded(answer, generation)

        self._when_done(self._actor.load.remote(), generation, loaded)

    def detect(self, pages: Sequence[tuple[int, bytes, int]]) -> None:
        """Detect the boxes on pages, see `ports.Worker`."""
        tickets = [ticket for ticket, _, _ in pages]
        self._detecting.update(tickets)
        sent = [(self._sent(data, page), page) for _, data, page in pages]
        account, features = self._actor.detect.remote(sent)
        self._answer(tickets, account, features)

    def recognise(self, pages: Sequence[tuple[int, Any]]) -> None:
        """Read the words of features in the node's object store."""
        features: list[Any] = []
        places: list[tuple[int, int]] = []
        for _, handed in pages:
            if handed is not None:
                ref, page = handed
                if ref not in features:
                    features.append(ref)
                places.append((features.index(ref), page))
        account = self._actor.read.remote(places, *features)
        self._answer([ticket for ticket, _ in pages], account, None)

    def kill(self) -> None:
        """Kill the actor's process, even if it is stuck in native code."""
        actor, self._actor, self._pid = self._actor, None, None
        self._forget([*self._detecting])
        if actor is not None:
            ray.kill(actor, no_restart=True)

    def _sent(self, data: bytes, page: int) -> bytes | list[Any]:
        if not page:
            return data
        file = self._file
        if file is None or file[0] is not data:
            file = self._file = data, ray.put(data)
        return [file[1]]

    def _answer(self, tickets: list[int], account: Any, features: Any) -> None:
        name, generation = self.name, self._generation

        def done(outcome: Outcome) -> None:
            for at, (ticket, value) in enumerate(zip(tickets, outcome.values, strict=True)):
                if isinstance(value, str):
                    self._events.put(Raised(name, generation, ticket, value))
                    continue
                handed = None if features is None else (features, at)
                event = Answered(name, generation, ticket, value, handed, outcome.uss_bytes)
                self._events.put(event)

        self._when_done(account, generation, done, tickets)

    def _forget(self, tickets: Sequence[int]) -> None:
        """Hold a file no longer than pages of it are being detected."""
        self._detecting.difference_update(tickets)
        if not self._detecting:
            self._file = None

    def _when_done(
        self, ref: Any, generation: int, done: Callable[[Any], None], tickets: Sequence[int] = ()
    ) -> None:
        # A callback, not ray.wait: the runner waits for many things on one queue.
        def resolved(future: Any) -> None:
            error = future.exception()
            self._forget(tickets)
            if error is None:
                done(future.result())
            elif isinstance(error, (*_LOST, ray.exceptions.RayTaskError)) and tickets:
                lost = isinstance(error, _LOST)
                message = first_line(error) if lost else _told(error.cause)
                for ticket in tickets:
                    self._events.put(Raised(self.name, generation, ticket, message, lost))
            else:
                self._events.put(Died(self.name, generation, *describe_end(error)))

        ref.future().add_done_callback(resolved)

    def _on_loaded(self, loaded: Loaded, generation: int) -> None:
        if loaded.error is not None:
            self._events.put(Refused(self.name, generation, loaded.error))
            return
        if generation == self._generation:
            self._pid = loaded.pid
        self._events.put(Started(self.name, generation))


_NODE_ENDED: Final = re.compile(r"node (?:has )?(?:died|was terminated|is dead)", re.IGNORECASE)
_NO_MODULE: Final = re.compile(r"No module named '([\w.]+)'")
_LOST: Final = (
    ray.exceptions.ObjectLostError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.OutOfDiskError,
)


NODE_DIED: Final = "its node died"
UNREACHABLE: Final = "cannot be reached"  # a node that dies is only silent at first


def describe_end(error: BaseException) -> tuple[str, bool]:
    """A Ray failure in a few words, and whether its cause was outside the process."""
    text = str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory pressure" in text:
        return "killed by Ray: out of memory", True
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return UNREACHABLE, True
    if isinstance(error, ray.exceptions.NodeDiedError) or _NODE_ENDED.search(text):
        return NODE_DIED, True
    for name in ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"):
        if f"signal {name}" in text:
            return name, name == "SIGKILL"
    if isinstance(error, ray.exceptions.ActorDiedError):
        return "its process ended unexpectedly", False
    return first_line(error), False


def not_installed(module: str) -> str:
    """The message for a node on which a package is missing."""
    return (
        f"a node of the Ray cluster cannot import {module}: install the same "
        "textspot-ray there as here, or use the image of infra/docker; `textspot doctor --address` "
        "names every such node"
    )


def missing_module(error: BaseException) -> str:
    """The missing package that kept an actor from starting; empty if it was something else."""
    found = _NO_MODULE.search(str(error))
    return found[1] if found else ""


def first_line(error: BaseException) -> str:
    """The first non-empty line of an exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class RunnerActor:
    """The runner of a slot; it owns the slot's other actors, which end with it.

    Args:
        job: What the run is.
        shape: Of the slot.
        group: The placement group of its actors.
    """

    def __init__(self, job: Job, shape: SlotShape, group: Any) -> None:
        self._job = job
        self._shape = shape
        self._group = group
        self._slot: Slot | None = None

    def open(self) -> str:
        """Open the output folder and start the models; the id of the node this is on.

        Raises:
            TextspotError: They cannot be used.
        """
        limit_library_threads()
        use_default_crash_handlers()
        node = str(ray.get_runtime_context().get_node_id())
        # Several Ray nodes may share a machine, and host names say little in a cloud.
        name = f"{platform.node()}/{node[:8]}"
        self._slot = Slot(self._job, self._make_workers, self._shape.threads, name)
        return node

    def step(self, tasks: Sequence[Task], timeout_s: float, more: bool, drain: bool) -> Report:
        """See `Slot.step`.

        Args:
            tasks: New tasks.
            timeout_s: Longest time to work.
            more: Whether the caller has more tasks.
            drain: Start no more images.
        """
        assert self._slot is not None
        return self._slot.step(tasks, timeout_s, more=more, drain=drain)

    def close(self) -> None:
        """Kill the slot's other actors."""
        if self._slot is not None:
            self._slot.close()

    def _make_workers(self, events: Events) -> list[Worker]:
        threads, bundles = self._shape.threads, self._shape.bundles
        models = self._job.recipe.models.sized(threads)
        workers: list[Worker] = []
        for index in range(1, len(bundles)):
            last = index == len(bundles) - 1
            stage = Stage.RECOGNISE if last else Stage.DETECT
            many = len(bundles) > 3
            name = "recogniser" if last else f"detector {index}" if many else "detector"
            options = {
                **in_group(self._group, index, bundles[index]["CPU"]),
                "max_concurrency": 2 if last else threads.detect_calls,
            }
            workers.append(ActorWorker(name, stage, models, events, options))
        return workers


def in_group(group: Any, index: int, cpus: float) -> dict[str, Any]:
    """Options that put an actor into a bundle of a placement group.

    Args:
        group: The placement group.
        index: Which of its bundles.
        cpus: CPUs of the bundle that the actor takes.
    """
    strategy = PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=index
    )
    return {"num_cpus": cpus, "scheduling_strategy": strategy}
