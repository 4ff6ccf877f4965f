"""A worker without a process, for tests of the runner: deaths and stalls are acted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from tests.support.scripted import ScriptedDetector, ScriptedRecognizer, assemble, parse
from textspot_ray.engine.slot.limits import Limits
from textspot_ray.engine.slot.open_shards import ShardOutcome
from textspot_ray.engine.slot.ports import Answered, Died, Events, Raised, Refused, Started
from textspot_ray.engine.slot.read_ahead import ReadAhead
from textspot_ray.engine.slot.runner import ShardRunner
from textspot_ray.engine.slot.slot import small_page
from textspot_ray.errors import BundleError
from textspot_ray.records import Counts, Encoded, ImageResult, Item, Shard, ShardId, Stage
from textspot_ray.tables.rows import counts_of


class ActedWorker:
    """Answers at once, in the caller's thread. ``do=crash|kill|stall`` are acted, not done."""

    def __init__(
        self,
        events: Events,
        name: str = "spotter",
        stages: Iterable[Stage] = (Stage.DETECT, Stage.RECOGNISE),
        *,
        broken: str = "",
        keeps_features: bool = True,
        max_batch: int = 1,
    ) -> None:
        self.name = name
        self.stages = frozenset(stages)
        self.events = events
        self.broken = broken  # ``start``: dies while loading; ``always``: dies of any image
        self.starts = 0
        self.asked: list[str] = []
        self.max_batch = max_batch
        self.batches: list[int] = []  # sizes of calls
        self.uss_bytes = 0
        self.pid: int | None = None
        self._keeps = keeps_features
        self._features: dict[int, Any] = {}
        self._generation = 0
        self._dead = True
        self._open: list[int] = []

    def start(self, generation: int) -> None:
        self.starts += 1
        self._generation, self._dead = generation, False
        self._features.clear()
        if self.broken == "start":
            self._die("SIGSEGV")
        elif self.broken == "refuse":
            self.events.put(Refused(self.name, generation, BundleError("no such bundle")))
        elif self.broken != "hang":
            self.events.put(Started(self.name, generation))

    def kill(self) -> None:
        self._dead = True

    def detect(self, pages: Sequence[tuple[int, bytes, int]]) -> None:
        self.batches.append(len(pages))
        answers = [self._detect(*page) for page in pages]
        self._answer(answers)

    def recognise(self, pages: Sequence[tuple[int, Any]]) -> None:
        self.batches.append(len(pages))
        self._answer([self._recognise(*page) for page in pages])

    def _answer(self, answers: Sequence[Any]) -> None:
        """Give the events of a call, all or (if it ended the process, or stalled) none."""
        if not self._dead and not any(answer is None for answer in answers):
            for answer in answers:
                self.events.put(answer)

    def _detect(self, ticket: int, data: bytes, page: int) -> Any:
        return self._ask(
            ticket, data, "do", lambda: ScriptedDetector().detect(_harmless(data), page)
        )

    def _recognise(self, ticket: int, features: Any) -> Any:
        if ticket == 0:
            return Answered(self.name, self._generation, 0, ScriptedRecognizer().read(_NONE))
        data, array = self._features.pop(ticket) if self._keeps else features
        return self._ask(ticket, data, "read_do", lambda: (ScriptedRecognizer().read(array), None))

    def _ask(self, ticket: int, data: bytes, key: str, work: Any) -> Any:
        if self._dead:
            return None
        script = {} if data.startswith(b"\x89PNG") else parse(data)
        self.asked.append(script.get("name", "?"))
        action = script.get(key, "")
        if action.endswith("_once") and self.asked.count(self.asked[-1]) > 1:
            action = "none"
        action = action.removesuffix("_once")
        if self.broken == "always" or action == "crash":
            self._die("SIGSEGV")
        elif action == "kill":
            self._die("SIGKILL", system=True)
        elif action == "lost":
            return Raised(self.name, self._generation, ticket, "object lost", lost=True)
        elif action == "raise":
            return Raised(self.name, self._generation, ticket, "ValueError: scripted")
        elif action != "stall":
            value, features = work()
            handle = None
            if features is not None and len(features):
                if self._keeps:
                    self._features[ticket] = (data, features)
                else:
                    handle = (data, features)
            generation, uss = self._generation, self.uss_bytes
            return Answered(self.name, generation, ticket, value, handle, uss)
        return None

    def _die(self, reason: str, system: bool = False) -> None:
        self._dead = True
        self.events.put(Died(self.name, self._generation, reason, system))


class ListReader:
    """Reads scripts out of the items themselves."""

    def read(self, items: Iterable[Item]) -> Any:
        for item in items:
            yield (
                Encoded(item, None, item.error)
                if item.error
                else Encoded(item, (item.extra or "").replace(";", "\n").encode())
            )

    def close(self) -> None:
        pass


class ListWriter:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.results: list[ImageResult] = []
        self.ended = ""
        self.shard: ShardId | None = None

    def add(self, result: ImageResult) -> Counts:
        self.results.append(result)
        return counts_of(result)

    def commit(self) -> None:
        self.ended = "committed"

    def discard(self) -> None:
        self.ended = "discarded"


_NUMBERS = itertools.count()
_NONE = ScriptedDetector().detect(b"words=", 0)[1]


def _harmless(data: bytes) -> bytes:
    """The script without the acts that this worker performs itself."""
    acted = (b"do=lost", b"do=stall", b"read_do")
    lines = [line for line in data.split(b"\n") if not line.startswith(acted)]
    return b"\n".join(lines)


def make_shard(scripts: Iterable[str]) -> Shard:
    items = tuple(
        Item(f"mem://{n}", f"mem://{n}", extra=f"name={n};{script}")
        for n, script in enumerate(scripts)
    )
    return Shard(ShardId(0, next(_NUMBERS)), items)


class Bench:
    """A runner with acted workers, and its writers."""

    def __init__(
        self,
        *,
        split: bool = False,
        batch: int = 1,
        reader: Any = ListReader,
        weigh: Any = small_page,
        **limits: Any,
    ) -> None:
        self.events = Events()
        if split:
            self.workers = [
                ActedWorker(self.events, name, [stage], keeps_features=False, max_batch=batch)
                for name, stage in (("detector", Stage.DETECT), ("recogniser", Stage.RECOGNISE))
            ]
        else:
            self.workers = [ActedWorker(self.events)]
        limits = {"min_deadline_s": 0.2, "start_timeout_s": 0.4, **limits}
        self.read_ahead = ReadAhead(reader, self.events, max_items=8 * batch, max_bytes=2**20)
        self.runner = ShardRunner(
            list(self.workers), self.read_ahead, self.events, assemble, Limits(**limits), weigh
        )
        self.writers: list[ListWriter] = []

    def offer(self, scripts: Iterable[str]) -> ListWriter:
        writer = ListWriter()
        self.writers.append(writer)
        shard = make_shard(scripts)
        writer.shard = shard.id
        self.runner.offer(shard, writer)
        return writer

    def finish(self, turns: int = 100) -> list[ShardOutcome]:
        """Work until nothing is open."""
        settled: list[ShardOutcome] = []
        for _ in range(turns):
            settled += self.runner.pump(0.2, more=False)
            if self.runner.idle:
                return settled
        raise AssertionError("not finished")

    def run(self, scripts: Iterable[str]) -> dict[str, ImageResult]:
        """Run one shard to its end; results by name of the image and page."""
        writer = self.offer(scripts)
        try:
            self.finish()
        finally:
            self.runner.close()
        assert writer.ended == "committed"
        return {f"{r.item.image_id[6:]}.{r.page}": r for r in writer.results}
