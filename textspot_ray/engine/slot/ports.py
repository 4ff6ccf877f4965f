"""What the runner asks of a worker process, and what a worker process answers.

A worker is one process with models in it: the detector, the recogniser, or both. The runner talks
to it through `Worker` alone; the engines implement that. Answers arrive as events on one queue,
so that the runner has a single place to wait.
"""

from __future__ import annotations

import io
import queue
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from textspot_ray.errors import TextspotError
from textspot_ray.records import DetectedPage, Encoded, Readings, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textspot_ray.engine.sizing import Threads
    from textspot_ray.spotting.settings import SpotterSettings
    from textspot_ray.tables.commit.commit_record import CommitRecord

# Reserved for a page's features until the detector has found them: 100 boxes of the published
# detector, its worst case of one pass. Pages of many tiles or lines may have more.
EXPECTED_FEATURE_BYTES: Final = 100 * 64 * 28 * 28 * 4


@dataclass(frozen=True, slots=True)
class PageWork:
    """What a page is expected to ask of a detector.

    Attributes:
        passes: Of the model.
        n_bytes: Of pixels and features, held until the page's features are handed on.
    """

    passes: float = 1.0
    n_bytes: int = 0


class Detects(Protocol):
    """What a worker needs of a `PageDetector`; called from several threads at once."""

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, Any]:
        """Decode a page and find its regions and their features, which only readers understand."""


class Reads(Protocol):
    """What a worker needs of a recogniser."""

    def read(self, features: Any) -> Readings:
        """Read each row."""

    def blank(self) -> Any:
        """Features of one empty region."""


class Models(Protocol):
    """A picklable recipe: models are built in the process that uses them."""

    def detector(self) -> Detects:
        """Load the detector."""

    def recognizer(self) -> Reads:
        """Load the recogniser."""

    def sized(self, threads: Threads) -> Models:
        """The same models with the inference threads of a slot."""


@dataclass(frozen=True, slots=True)
class BundleModels:
    """The recipe of a real run."""

    settings: SpotterSettings
    recognizer_threads: int

    def detector(self) -> Detects:
        """Compile the bundle's detector."""
        from textspot_ray.spotting.spotter import PageDetector

        return PageDetector(self.settings)

    def recognizer(self) -> Reads:
        """Compile the bundle's recogniser."""
        from textspot_ray.spotting.spotter import family_named, load_recognizer

        family = family_named(self.settings.model)
        threads = family.recognizer_threads(self.settings.threads, self.recognizer_threads)
        return load_recognizer(replace(self.settings, threads=threads, streams=1))

    def sized(self, threads: Threads) -> BundleModels:
        """With the threads of a slot, which need not be on this machine."""
        settings = replace(self.settings, threads=threads.detector, streams=threads.streams)
        return BundleModels(settings, threads.recognizer)


class Worker(Protocol):
    """A process that can be started, asked and killed; no method waits for it.

    ``max_batch`` pages may be asked for in one call; each is answered by an event of its own.
    """

    name: str
    stages: frozenset[Stage]
    max_batch: int

    @property
    def pid(self) -> int | None:
        """Its process on this machine, once that is known."""

    def start(self, generation: int) -> None:
        """Start a fresh process; `Started`, `Refused` or `Died` follows."""

    def detect(self, pages: Sequence[tuple[int, bytes, int]]) -> None:
        """Ask for pages' boxes; `Answered`, `Raised` or `Died` follows.

        Args:
            pages: Number of the attempt, the encoded image, and which page of it, from 0.
        """

    def recognise(self, pages: Sequence[tuple[int, Any]]) -> None:
        """Ask for the words of pages' features, in the form that `Answered` handed out."""

    def kill(self) -> None:
        """End the process at once; nothing more comes from this generation."""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has loaded its models."""

    worker: str
    generation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A worker cannot load its models, and would not the next time either."""

    worker: str
    generation: int
    error: TextspotError


@dataclass(frozen=True, slots=True)
class Answered:
    """One call is done. ``features`` is opaque: what `Worker.recognise` wants to be given."""

    worker: str
    generation: int
    ticket: int
    value: DetectedPage | Readings
    features: Any = None
    uss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Raised:
    """One call ended in an exception; ``lost``: because its input was lost on the way."""

    worker: str
    generation: int
    ticket: int
    message: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Died:
    """The process is gone. ``system``: by a fault that no image causes (killed from outside)."""

    worker: str
    generation: int
    reason: str
    system: bool = False


@dataclass(frozen=True, slots=True)
class ItemRead:
    """The reader has the next item of a shard."""

    shard_key: int
    index: int
    encoded: Encoded


@dataclass(frozen=True, slots=True)
class ReaderFailed:
    """The reader raised, which it never should: a fault of ours."""

    reader: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Committed:
    """A shard's commit came to an end; no record and no error: another attempt was faster."""

    shard_key: int
    record: CommitRecord | None
    error: BaseException | None = None


Event = Started | Refused | Answered | Raised | Died | ItemRead | ReaderFailed | Committed
Events = queue.SimpleQueue[Event]


def blank_png(width: int = 1280, height: int = 768) -> bytes:
    """An all-grey PNG: what a worker is tried with after it died more than once."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (width, height), 128).save(out, "PNG")
    return out.getvalue()
