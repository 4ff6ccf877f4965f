"""The workers of a slot as the runner sees them: their state and their open calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from textspot_ray.engine.slot.limits import MAX_STRETCH, Deadlines, Starving, allowed_s
from textspot_ray.engine.slot.ports import Worker
from textspot_ray.records import Stage

_MIN_CALLS_BEFORE_RECYCLE = 20  # so that a limit below the models' own size does not stop work
_LEAST_LOOK_S = 5.0
# Work in one call: with more, the cost of a call hardly matters, and the other pages wait.
_CALL_S = 0.1
_SHORTEST_S = 1e-3


class State(StrEnum):
    """What a worker is doing."""

    DOWN = "down"
    STARTING = "starting"
    PROBING = "probing"
    READY = "ready"


@dataclass(slots=True)
class Call:
    """A page that a worker has not answered yet."""

    stage: Stage
    since_s: float
    weight: float  # see `limits.Deadlines`
    batch: int  # ticket of the first page asked for in the same call


@dataclass(slots=True)
class WorkerHandle:
    """One worker, its current process and its open calls by ticket."""

    worker: Worker
    state: State = State.DOWN
    generation: int = 0
    since_s: float = 0.0
    calls: dict[int, Call] = field(default_factory=dict)
    answered: int = 0
    recycle: bool = False
    times_recycled: int = 0
    uss_bytes: int = 0
    pace_s: float = _CALL_S  # of a page, lately
    starving: Starving | None = None  # measured from half of a deadline on

    @property
    def name(self) -> str:
        """The worker's name in messages."""
        return self.worker.name

    @property
    def first_stage(self) -> Stage:
        """The stage at which images enter this worker."""
        return Stage.DETECT if Stage.DETECT in self.worker.stages else Stage.RECOGNISE

    @property
    def may_recycle(self) -> bool:
        """Whether it has outgrown its limit and is idle."""
        return self.recycle and not self.calls and self.state is State.READY

    def start(self) -> None:
        """Start a fresh process."""
        self.generation += 1
        self.state = State.STARTING
        self.since_s = time.monotonic()
        self.answered = 0
        self.recycle = False
        self.uss_bytes = 0
        self.starving = None
        self.worker.start(self.generation)

    def stop(self) -> None:
        """Kill the process; open calls are forgotten."""
        self.state = State.DOWN
        self.calls.clear()
        self.worker.kill()

    def takes(self, stage: Stage, max_calls: int) -> bool:
        """Whether a call of this stage can be sent now.

        A worker that takes batches has at most ``max_calls`` open; what becomes ready meanwhile
        goes together.
        """
        if self.state is not State.READY or stage not in self.worker.stages:
            return False
        if self.worker.max_batch > 1 and self.n_calls >= max_calls:
            return False
        # Features that lie in this process must be read before it is recycled.
        return not (self.recycle and stage is self.first_stage)

    @property
    def n_calls(self) -> int:
        """Calls that are open, each for a page or a batch of them."""
        return len({call.batch for call in self.calls.values()})

    @property
    def batch(self) -> int:
        """Pages for one call, by the time they take; slow pages go one by one."""
        return max(1, min(self.worker.max_batch, int(_CALL_S / self.pace_s)))

    def note_pace(self, seconds: float) -> None:
        """Note how long a page took."""
        self.pace_s += (max(seconds, _SHORTEST_S) - self.pace_s) / 8

    def open(self, tickets: Sequence[int], stage: Stage, weight: float) -> None:
        """Note a call that is being sent.

        Args:
            tickets: Numbers of the attempts that it is for.
            stage: What is asked.
            weight: Of the work in all, for its deadline.
        """
        for ticket in tickets:
            self.calls[ticket] = Call(stage, time.monotonic(), weight, tickets[0])

    def close(self, ticket: int, uss_bytes: int, max_uss_bytes: int) -> Call | None:
        """Note an answer; a process grown past the limit is marked to be recycled.

        Args:
            ticket: Number of the attempt.
            uss_bytes: The process's unique memory now; 0 if it was not measured.
            max_uss_bytes: The limit.
        """
        call = self.calls.pop(ticket, None)
        self.answered += 1
        self.uss_bytes = uss_bytes or self.uss_bytes
        if uss_bytes > max_uss_bytes and self.answered >= _MIN_CALLS_BEFORE_RECYCLE:
            self.recycle = True
        return call

    def overdue(self, deadlines: Deadlines, start_timeout_s: float) -> str | None:
        """Why this worker must be killed now; None if it need not be.

        Time that its process spent waiting for a core does not count, up to a limit.
        """
        now = time.monotonic()
        late = False
        if self.state in (State.STARTING, State.PROBING):
            late = now - self.since_s > start_timeout_s / 2
            if self._is_over(now - self.since_s, start_timeout_s):
                return f"did not load its models within {now - self.since_s:.0f} s"
        for call in self.calls.values():
            open_s = now - call.since_s
            late = late or open_s > deadlines.limit_s(call.stage) / 2
            if open_s <= deadlines.limit_s(call.stage):
                continue
            if self._is_over(open_s, deadlines.limit_s(call.stage, call.weight)):
                return f"{call.stage} gave no answer within {open_s:.0f} s"
        pid = self.worker.pid
        if not late or pid is None:
            self.starving = None
        elif self.starving is None or self.starving.pid != pid:
            self.starving = Starving.begin(pid)
        return None

    def _is_over(self, open_s: float, limit_s: float) -> bool:
        if open_s <= limit_s:
            return False
        if open_s > MAX_STRETCH * limit_s or self.worker.pid is None:
            return True
        # A runner that was short of CPU itself has not measured in time.
        if self.starving is None or self.starving.age_s < min(_LEAST_LOOK_S, limit_s / 4):
            return False
        return open_s > allowed_s(limit_s, self.starving.share())


class WorkerPool:
    """All workers of a slot."""

    def __init__(self, workers: list[Worker]) -> None:
        self.handles = [WorkerHandle(worker) for worker in workers]

    def find(self, name: str, generation: int) -> WorkerHandle | None:
        """The worker whose current process sent an event; None if it has been replaced since."""
        for handle in self.handles:
            if handle.name == name:
                return handle if handle.generation == generation else None
        return None

    def least_busy(self, stage: Stage, max_calls: int) -> WorkerHandle | None:
        """The worker to send a call of this stage to, if any can take it."""
        able = [handle for handle in self.handles if handle.takes(stage, max_calls)]
        return min(able, key=lambda handle: len(handle.calls), default=None)

    def free_calls(self, stage: Stage, max_calls: int) -> int:
        """How many calls of this stage could be sent now; at least 1."""
        able = [handle for handle in self.handles if handle.takes(stage, max_calls)]
        return max(1, sum(max_calls - handle.n_calls for handle in able))

    @property
    def detectors(self) -> list[WorkerHandle]:
        """Workers that detect."""
        return [handle for handle in self.handles if Stage.DETECT in handle.worker.stages]

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Memory of the largest process of each kind, as last reported."""
        largest: dict[str, int] = {}
        for handle in self.handles:
            kind = handle.name.partition(" ")[0]  # ``detector 2``
            largest[kind] = max(handle.uss_bytes, largest.get(kind, 0))
        return largest

    def stop(self) -> None:
        """Kill every process."""
        for handle in self.handles:
            handle.stop()
